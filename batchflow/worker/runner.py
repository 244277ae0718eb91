"""Runs the work of one job in one process."""

from __future__ import annotations

import os
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from batchflow.errors import WorkerDied
from batchflow.formats import digest, format_of
from batchflow.model import Assemble, Failed, Inspect, Merge, Outcome, Phase, Stats, Succeeded, Task, Work
from batchflow.resources import format_bytes
from batchflow.retry import NEVER, Retry
from batchflow.rows import Rows
from batchflow.sources.base import Block
from batchflow.tables import as_table, concat
from batchflow.worker.batches import BatchRun
from batchflow.worker.failures import failed, lost, placed, worker_name
from batchflow.worker.guard import Guard, Overtime, give_back, too_slow
from batchflow.worker.program import Limits, Program
from batchflow.worker.records import RecordRun
from batchflow.worker.run import PASSING

if TYPE_CHECKING:
    from batchflow.worker.lanes import Lanes

_NOTHING = object()


class Runner:
    """Runs the work of one job in one process.

    Parameters
    ----------
    program
        What the job is.
    guarded
        Whether this is a worker, where a task is kept to its time and memory.
    """

    def __init__(self, program: Program, *, guarded: bool = False) -> None:
        self._program = program
        self._guarded = guarded
        self._state: Any = _NOTHING
        self._lanes: Lanes | None = None
        self._reopen()

    def close(self) -> None:
        """Give back what outlives a task: the threads or the loop of the job, and the client made in it."""
        if self._lanes is not None:
            self._lanes.close(self._client())
            self._lanes = None

    def perform(self, work: Work) -> Outcome:
        """Do one piece of work and return what came of it; never raises an `Exception`."""
        limits = self._program.limits
        try:
            self._reopen()
        except Exception as error:  # noqa: BLE001 - no more threads
            return failed(work, "worker", error)
        try:
            if not self._guarded or isinstance(work, Assemble):
                return self._perform(work)
            with Guard(*limits):
                return self._perform(work)
        except (Overtime, MemoryError) as error:
            return over(work, error, limits, self._program.retry)

    def _reopen(self) -> None:
        """Make anew what went with a task that broke off; outside the limits of the next one."""
        if self._lanes is None and self._program.side_by_side is not None:
            from batchflow.worker.lanes import lanes_of  # with asyncio, 40 ms

            self._lanes = lanes_of(self._program)

    def _perform(self, work: Work) -> Outcome:
        phase: Phase = "worker"
        try:
            if isinstance(work, Task):
                return self._task(work)
            if isinstance(work, Inspect):
                return self._inspect(work.task)
            if isinstance(work, Assemble):
                return assembled(work, guarded=self._guarded)
            phase = "call"
            return self._merge(work)
        except PASSING:
            raise
        except BaseException as error:  # noqa: BLE001 - a failure is a value
            return failed(work, phase, error, retry=self._program.retry)

    def _task(self, task: Task) -> Outcome:
        if self._lanes is not None:
            return self._waiting(task, self._lanes)
        run = RecordRun if self._program.per == "record" else BatchRun
        return run(self._program, task, self._prepared()).outcome()

    def _waiting(self, task: Task, lanes: Lanes) -> Outcome:
        """Run a task whose calls wait side by side; where it breaks off, so does all that they wait in."""
        from batchflow.worker.waiting import WaitingRun  # as above

        try:
            return WaitingRun(self._program, task, self._prepared(), lanes).outcome()
        except PASSING:
            lanes.close(self._client(), broken=self._guarded)
            self._lanes = None
            self._state = _NOTHING if lanes.holds_setup else self._state
            raise

    def _client(self) -> Any:
        return None if self._state is _NOTHING else self._state

    def _prepared(self) -> tuple[Any, ...]:
        """Return what follows the record in each call: the value of ``setup=``, made once."""
        if self._program.setup is None:
            return ()
        if self._state is _NOTHING:
            setup = self._program.setup
            self._state = setup() if self._lanes is None else self._lanes.make(setup)
        return (self._state,)

    def _inspect(self, task: Task) -> Outcome:
        """Count the numbers of a chunk, and place its record if it is but one."""
        ends: dict[int, int] = {}
        found: list[tuple[Block, int]] = []
        for block in self._program.source.read(task.chunk, task.data):
            ends[id(block.span)] = block.end
            found = (found + [(block, at) for at in range(min(2, len(block.numbers)))])[:2]
        outcome = failed(task, "worker", WorkerDied(""), sum(ends.values()))
        return placed(outcome, *found[0]) if len(found) == 1 else outcome

    def _merge(self, work: Merge) -> Outcome:
        assert self._program.combine is not None
        table = concat(table for part in work.parts for table in part.tables)
        rows = Rows([as_table(self._program.combine(table))])
        return Succeeded(work.key, Stats(worker_name(), held=rows.nbytes), (), rows)


def assembled(work: Assemble, *, guarded: bool = True) -> Outcome:
    """Put pieces together; of a part that failed nothing is left. Needs nothing of the job.

    Parameters
    ----------
    guarded
        Whether this is a worker, where work is kept to its time.
    """
    limits = Limits(work.seconds)
    try:
        with Guard(*limits) if guarded else nullcontext():
            format_of(work.format).assemble(work.pieces, work.schema, work.path)
            written = os.stat(work.path).st_size, digest(work.path)  # noqa: PTH116
    except BaseException as error:
        with suppress(OSError):
            os.unlink(work.path)  # noqa: PTH108
        if isinstance(error, Overtime | MemoryError):
            return over(work, error, limits)
        if isinstance(error, KeyboardInterrupt):
            raise
        return failed(work, "write", error)
    return Succeeded(work.key, Stats(worker_name()), (), written)


def over(work: Work, error: Overtime | MemoryError, limits: Limits, retry: Retry = NEVER) -> Failed:
    """Return the outcome of work that broke off at a limit."""
    if isinstance(error, Overtime):
        assert limits.seconds is not None
        slow = too_slow(work, limits.seconds).with_traceback(error.__traceback__)
        return lost(work, "timeout", slow, retry=retry)
    outcome = lost(work, "memory", _too_much(error, limits.memory), retry=retry)
    error.__traceback__ = error.__context__ = None  # what the task held hangs there
    give_back()
    return outcome


def _too_much(error: MemoryError, cap: int | None) -> MemoryError:
    """Return what a task is told to have failed of that took too much memory."""
    told = f": {error}" if str(error) else ""
    over = f"the task took more than per_task memory={format_bytes(cap)}" if cap else "there is no more memory"
    return MemoryError(f"{over}{told}").with_traceback(error.__traceback__)
