"""Runner of a job's work items in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from batchflow.core.outcomes import Outcome, Phase, SpanCount, Stats, Succeeded
from batchflow.core.work import AssemblePart, Call, CombineTables, CountRecords, Task, WorkItem
from batchflow.errors import WorkerDied
from batchflow.io.arrow.convert import as_table
from batchflow.io.arrow.rows import Rows
from batchflow.io.arrow.schema import concat
from batchflow.io.sources.base import Block
from batchflow.io.sources.in_memory import RecordsSource
from batchflow.worker.batch_task import BatchTask
from batchflow.worker.failures import failed, over, placed, worker_name
from batchflow.worker.limits import TaskLimits, TaskTimeout
from batchflow.worker.program import Program
from batchflow.worker.record_task import RecordTask
from batchflow.worker.sinks import assembled
from batchflow.worker.step_call import called
from batchflow.worker.task import PASSING, JobState, peak_memory

if TYPE_CHECKING:
    from batchflow.worker.concurrency import ConcurrencyBackend
    from batchflow.worker.concurrent_task import ConcurrentRecordTask, Overlap

_NOTHING = object()


class Runner:
    """Performs the work items of one job in one process.

    Parameters
    ----------
    program
        Program of the job.
    guarded
        Whether this process is a worker, which enforces limits.
    cells
        Memory shared with the driver, for the position of the current task.
    announce
        Called before and after ``setup=`` with the task that needs it and whether ``setup=`` starts. It informs
        a driver that shares no memory.
    """

    def __init__(
        self,
        program: Program,
        *,
        guarded: bool = False,
        cells: memoryview | None = None,
        announce: Callable[[Task, bool], None] | None = None,
    ) -> None:
        self._program = program
        self._guarded = guarded
        self._state: Any = _NOTHING
        self._job = JobState(cells)
        self._announce = announce
        self._waits = program.side_by_side is not None
        self._lanes: ConcurrencyBackend | None = None
        self._overlap: Overlap | None = None
        self._run: ConcurrentRecordTask | None = None
        """Current task, if its calls are concurrent."""
        self._overlapped = False
        """Whether calls of later tasks ran beside those of the last aborted task."""
        self._more: Callable[[int], Task | None] | None = None
        self._reopen()

    def close(self) -> None:
        """Release resources that outlive a task: threads or event loop, and the client created in it."""
        if self._lanes is not None:
            self._lanes.close(self._client())
            self._lanes = None

    def perform(self, work: WorkItem, more: Callable[[int], Task | None] | None = None) -> Outcome:
        """Perform one work item and return its outcome; never raises an `Exception`.

        Parameters
        ----------
        more
            Returns a task waiting for this worker by its index: its calls may start early.
        """
        self._more = more
        self._run, self._overlapped = None, False
        limits = self._program.limits
        began = time.time()
        position = self._job.position
        position.clear()
        try:
            self._reopen()
        except Exception as error:
            return failed(work, "worker", error)
        try:
            if isinstance(work, PROGRAM_FREE_WORK):
                return run_without_program(work, guarded=self._guarded)
            if not self._guarded:
                return self._perform(work)
            with TaskLimits(*limits, self._seconds_left):
                return self._perform(work)
        except KeyboardInterrupt as error:
            if not self._guarded or not position.in_setup:
                raise
            return failed(work, "worker", error)._replace(setup=True)  # Ctrl-C is handled by the driver only
        except (TaskTimeout, MemoryError) as error:
            stats = Stats(worker_name(), began, time.time() - began, peak_memory=peak_memory())
            outcome = over(work, error, limits, self._program.retry)
            at = position.read()
            outcome = outcome._replace(stats=stats, position=at, suspect=self._overlapped and at is None)
            return outcome._replace(setup=True, died=False) if position.in_setup else outcome

    def _seconds_left(self, limit: float) -> float:
        """Return the seconds left for the current record at the time limit."""
        return (self._job.position if self._run is None else self._run).seconds_left(limit)

    def _reopen(self) -> None:
        """Recreate the concurrency backend after an aborted task, outside the limits of the next one."""
        if self._waits and self._lanes is None:
            from batchflow.worker.concurrency import concurrency_backend  # imports asyncio, 40 ms

            self._lanes = concurrency_backend(self._program)

    def _perform(self, work: WorkItem) -> Outcome:
        phase: Phase = "worker"
        try:
            if isinstance(work, Task):
                return self._task(work)
            if isinstance(work, CountRecords):
                return self._inspect(work.task)
            assert isinstance(work, CombineTables)
            phase = "call"
            return self._merge(work)
        except PASSING:
            raise
        except BaseException as error:
            outcome = failed(work, phase, error, retry=self._program.retry)
            return outcome._replace(setup=self._job.position.in_setup)

    def _task(self, task: Task) -> Outcome:
        if self._lanes is not None:
            return self._waiting(task, self._lanes)
        run = RecordTask if self._program.per == "record" else BatchTask
        return run(self._program, task, self._prepared(task), self._job).outcome()

    def _waiting(self, task: Task, lanes: ConcurrencyBackend) -> Outcome:
        """Run a task with concurrent calls; if it is aborted, its concurrency backend is closed as well."""
        from batchflow.worker.concurrent_task import ConcurrentRecordTask, Overlap  # imports asyncio, 40 ms

        try:
            extra = self._prepared(task)
            if self._overlap is None:
                self._overlap = Overlap()
            self._overlap.more = self._more if can_overlap(task) else None
            run = self._overlap.take(task, lanes)
            if run is None:
                run = ConcurrentRecordTask(self._program, task, extra, self._job, lanes)
                run.overlap = self._overlap
            else:
                run.resume()
            self._run = run
            return run.outcome()
        except PASSING:
            self._overlapped = self._overlap is not None and bool(self._overlap.runs)
            self._overlap = None
            lanes.close(self._client(), broken=self._guarded)
            self._lanes = None
            self._state = _NOTHING if lanes.holds_setup else self._state
            raise

    def _client(self) -> Any:
        return None if self._state is _NOTHING else self._state

    def _prepared(self, task: Task) -> tuple[Any, ...]:
        """Return the arguments that follow the record in each call: the value of ``setup=``, created once."""
        if self._program.setup is None:
            return ()
        if self._state is _NOTHING:
            setup = self._program.setup
            self._job.position.in_setup = True
            if self._announce is not None:
                self._announce(task, True)
            self._state = setup() if self._lanes is None else self._lanes.make(setup)
            self._job.position.in_setup = False
            if self._announce is not None:
                self._announce(task, False)
        return (self._state,)

    def _inspect(self, task: Task) -> Outcome:
        """Count the records of a chunk, and locate its record if it holds only one."""
        ends = {id(span): 0 for span in task.chunk.spans}
        found: list[tuple[Block, int]] = []
        for block in self._program.source.read(task.chunk, task.data):
            ends[id(block.span)] = block.end
            found = (found + [(block, at) for at in range(min(2, len(block.numbers)))])[:2]
        outcome = failed(task, "worker", WorkerDied(""), sum(ends.values()))
        spans = tuple(SpanCount(span.input.uri, ends[id(span)]) for span in task.chunk.spans)
        outcome = outcome._replace(stats=Stats(worker_name(), spans=spans))
        return placed(outcome, *found[0]) if len(found) == 1 else outcome

    def _merge(self, work: CombineTables) -> Outcome:
        assert self._program.combine is not None
        began = time.time()
        table = concat(table for part in work.parts for table in part.tables)
        rows = Rows([as_table(self._program.combine(table))])
        stats = Stats(worker_name(), began, time.time() - began, held=rows.nbytes)
        return Succeeded(work.key, stats, (), rows)


def can_overlap(task: Task) -> bool:
    """Whether calls of a task may run beside those of others: not if it is a retry or must run alone."""
    return task.attempt == 1 and not task.alone


PROGRAM_FREE_WORK = (AssemblePart, Call)
"""Work items that do not need the program of a job, even if it cannot be loaded."""


def _nothing() -> None:
    """Stand in for the function of a program whose calls bring their own."""


CALLS = Program(_nothing, RecordsSource(data=None))
"""Program for flow calls only; it is the same everywhere, so it is never sent."""


def run_without_program(work: AssemblePart | Call, *, guarded: bool = True) -> Outcome:
    """Perform a work item that does not need the program of a job."""
    return called(work, guarded=guarded) if isinstance(work, Call) else assembled(work, guarded=guarded)
