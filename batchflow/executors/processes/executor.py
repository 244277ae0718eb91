"""Embedded worker processes of one machine, each with a socket of its own.

::

    driver ── tasks ──> worker 1   one socket each, so that a death is pinned on its task
       │  └── tasks ──> worker 2
       └── forks ─────> zygote     forks the workers, tells how they ended
"""

from __future__ import annotations

import os
import pickle
import selectors
import signal
import socket
import time
import weakref
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from batchflow.core.chunks import Key
from batchflow.core.outcomes import Failed, Outcome, Stats
from batchflow.core.process_state import ProcessState
from batchflow.core.resources import Budget, Resources, available_cpus, capped, total_memory
from batchflow.core.retry import Retry
from batchflow.core.work import AssemblePart, Call, Task, WorkItem
from batchflow.errors import ExecutorError, UsageError
from batchflow.executors.base import Executor, take
from batchflow.executors.imported_modules import ImportedModules
from batchflow.executors.processes import launcher as launch
from batchflow.executors.processes import wire
from batchflow.executors.processes.shared_state import StartTokens, WorkerCounters
from batchflow.executors.processes.wire import full_outcome, lean_call
from batchflow.executors.processes.worker import LoadProgram, UnloadProgram
from batchflow.executors.processes.worker_handle import WorkBatch, WorkerHandle
from batchflow.executors.processes.zygote import REQUEST, WorkerExited
from batchflow.executors.program_loading import pickled, rules_of
from batchflow.worker import CALLS, OVERTIME, Limits, Program, died, failed, lost, too_slow, was_overtime
from batchflow.worker.log_records import LogSettings, log_settings
from batchflow.worker.position import PositionCells
from batchflow.worker.recent_values import NOT_BEGUN

if TYPE_CHECKING:
    from batchflow.core.rate import RateLimiter

_LOOK_SECONDS = 1.0
"""Seconds between checks for workers stopped past their time limit."""
_STILLBORN = 100
"""Workers in a row that ended without any work, after which no more are started."""


class Processes(Executor):
    """Runs tasks in worker processes on this machine; needs no server and starts in a fraction of a second.

    Parameters
    ----------
    workers
        Number of worker processes; by default as many as the job's limits and the machine's cores allow.
    """

    name: ClassVar[str] = "processes"
    prefetch: ClassVar[int] = 1
    overlap: ClassVar[int] = 8
    bundle: ClassVar[int] = 32
    ahead: ClassVar[int] = 16  # small ones, so that no socket fills up

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            message = f"Processes(workers={workers}): at least one worker is needed"
            raise UsageError(message)
        self._count = workers
        self._zygote: launch.ForkServerHandle | None = None
        self._selector = wire.SpinningSelector()  # unlike epoll it shares nothing with a fork of this process
        self._workers: dict[int, WorkerHandle] = {}
        self._wanted = 0
        self._made = 0
        self._stillborn = 0
        self._slots = 1
        self._programs: dict[int, _Loaded] = {}
        self._loaded = 0
        self._waiting: deque[WorkBatch] = deque()
        self._ready: list[tuple[int, Outcome]] = []
        self._next_look = 0.0
        """`time.monotonic` of the next check for overdue workers."""
        self._modules = ImportedModules()
        self._stale: list[str] = []
        """Modules that changed since the workers started."""
        self._was_forked = False
        """Whether this process is a fork of the one that created the executor."""
        self._of_parent: list[Mapping[int, _Loaded]] = []
        """Programs of the parent process, referenced here because their finalizers would remove its files."""
        _executors.add(self)

    def slots(self, limits: Resources, per_task: Resources) -> int:
        """Return how many tasks of a job may run concurrently, at most one per worker."""
        fitting = super().slots(limits, per_task)
        if self._count is None:
            return fitting
        asked = self._count if limits.cpus is None else min(self._count, fitting)
        return asked if per_task.nbytes is None else min(asked, fitting)

    def budget(self, limits: Resources) -> Budget:
        """Return the budget of a flow: at most one task per worker, if their number is given."""
        cpus = max(available_cpus(), self._count or 0)
        return Budget(capped(limits, cpus, total_memory()), self._count)

    def grow(self, workers: int) -> None:
        """Ensure a minimum number of worker processes."""
        if workers > self._wanted:
            self._wanted = workers
            self._fill()

    def start(self, slots: int, per_task: Resources, workers: int | None = None) -> None:
        """Start the zygote and workers up to this many; workers with outdated modules are replaced."""
        self._replace_stale()
        if self._zygote is None:
            self._zygote = launch.take(max(1, int(per_task.cpus or 1)), arrow=True)
            self._selector.register(self._zygote.control, selectors.EVENT_READ, None)
        self._slots = slots
        self._wanted = max(self._wanted, slots if workers is None else workers)
        self._fill()

    def _replace_stale(self) -> None:
        """Stop workers that may have imported a module that was reloaded or edited since.

        Raises
        ------
        ExecutorError
            If another job uses them now.
        """
        self._stale += self._modules.update() if self.warm else []
        if self._zygote is None:
            self._stale.clear()
        if not self._stale:
            return
        if self._programs:
            message = (
                f"{self._stale[0]} was reloaded or edited while another job runs on this executor, whose workers "
                "have its old code: finish that job before, or give this one executor=bf.Processes()"
            )
            raise ExecutorError(message)
        self.close()
        self._stale.clear()

    def _fill(self) -> None:
        """Fork the missing workers through the zygote; they accept tasks at once."""
        while len(self._workers) < self._wanted:
            ours, theirs = wire.pair()
            tally, file = WorkerCounters.make()
            self._made += 1
            worker = WorkerHandle(self._made, ours, tally, StartTokens.make())
            try:
                self._ask(self._made, theirs.fileno(), file, worker.permits.outlet)
            except OSError as error:
                worker.close()
                raise self._broken() from error
            finally:
                theirs.close()
                os.close(file)
            self._workers[self._made] = worker
            self._selector.register(ours, selectors.EVENT_READ, worker)

    def _ask(self, number: int, *fds: int) -> None:
        """Ask the zygote for a worker, or without descriptors to kill one; `OSError` if it is gone."""
        assert self._zygote is not None
        socket.send_fds(self._zygote.control, [REQUEST.pack(number)], fds)

    def load(self, program: Program) -> int:
        """Pickle a program once; all workers share its memory."""
        program = self.limited(program)
        data, buffers = (b"", ()) if program is CALLS else pickled(program)
        self._loaded += 1
        parcel = wire.Message(data, buffers) if program is not CALLS else None
        zygote = self._zygote
        assert zygote is not None
        state = ProcessState.capture(zygote.environment, zygote.argv)
        self._programs[self._loaded] = _Loaded(
            parcel,
            state,
            self._slots,
            program.limits,
            program.retry,
            program.waits,
            program.bucket,
            log_settings(),
            self.tasks_ahead(program),
        )
        return self._loaded

    def unload(self, job: int) -> None:
        """Unload a program here and on the workers; a worker still running it is killed."""
        program = self._programs.pop(job, None)
        if program is not None:
            program.close()
        self._waiting = deque(piece for piece in self._waiting if piece.job != job)
        take(self._ready, (job,))
        for worker in list(self._workers.values()):
            if any(piece.job == job for piece in worker.queue):
                self._kill(worker)
            elif job in worker.loaded:
                worker.loaded.discard(job)
                worker.send(UnloadProgram(job))

    def _kill(self, worker: WorkerHandle) -> None:
        """Kill a worker whose work is cancelled; work of other jobs returns to the queue."""
        self._return(worker.queue)
        self._drop(worker)
        with suppress(OSError):  # without a zygote there is no worker either
            self._ask(worker.number)

    def _return(self, pieces: Iterable[WorkBatch]) -> None:
        """Requeue work that did not start; work sent ahead must be sent again."""
        wanted = [piece for piece in pieces if piece.job in self._programs]
        self._waiting.extendleft(reversed([piece for piece in wanted if not piece.permit]))
        self._ready += [(piece.job, NOT_BEGUN._replace(key=piece.work.key)) for piece in wanted if piece.permit]

    def submit(self, job: int, work: WorkItem) -> None:
        """Send work to the worker with the shortest queue, or queue it until one has room."""
        if job not in self._programs:
            raise _forked()
        self._waiting.append(WorkBatch(job, (work,)))
        self._dispatch()

    def submit_all(self, job: int, works: Sequence[WorkItem]) -> None:
        """Send short work to one worker, unless each piece has a time limit that only the driver can enforce."""
        if job not in self._programs or any(self._programs[job].limits):
            super().submit_all(job, works)
            return
        self._waiting.append(WorkBatch(job, works))
        self._dispatch()

    def follow(self, job: int, calls: Sequence[Call], last: Key) -> int:
        """Send small calls ahead; each needs a token to start, which `recall` takes back."""
        worker = next((one for one in self._workers.values() if one.ends_with(job, last)), None)
        if worker is None or worker.lost:
            return 0
        return worker.send_ahead(job, list(takewhile(_is_packed, calls)))

    def recall(self, job: int, key: Key) -> list[Key]:
        """Recall work sent ahead to a worker that has not started."""
        worker = next((one for one in self._workers.values() if one.has(job, key)), None)
        return [] if worker is None else [piece.work.key for piece in worker.take_back()]

    def _dispatch(self) -> None:
        if len(self._workers) < self._wanted:
            self._fill()
        while self._waiting:
            worker = self._free_for(self._waiting[0].job)
            if worker is None or len(worker.queue) > self._depth(self._waiting[0].job):
                return
            self._give(worker, self._waiting.popleft())

    def _depth(self, job: int) -> int:
        """Return the maximum queue length of a worker."""
        return max(self.prefetch, self._programs[job].ahead)

    def _free_for(self, job: int) -> WorkerHandle | None:
        """Return the worker with the shortest queue, within the slots of the job."""
        able = [worker for worker in self._workers.values() if not worker.lost]
        slots = self._programs[job].slots
        if slots < len(able):
            own = [worker for worker in able if any(piece.job == job for piece in worker.queue)]
            able = own if len(own) >= slots else able
        return min(able, key=lambda worker: len(worker.queue), default=None)

    def _give(self, worker: WorkerHandle, piece: WorkBatch) -> None:
        job, work = piece.job, piece.works[0]
        sent = list(piece.works) if len(piece.works) > 1 else lean_call(work) if isinstance(work, Call) else work
        try:
            parcel = wire.pack((job, sent), packed=_is_packed(work))
        except Exception as error:
            if len(piece.works) > 1:
                self._waiting.extendleft(reversed(piece.parts))
            else:
                self._ready.append((job, failed(work, "read", error)))
            return
        if job not in worker.loaded and not isinstance(work, AssemblePart):
            worker.loaded.add(job)
            program = self._programs[job]
            has_program = program.parcel is not None
            worker.send(
                LoadProgram(job, program.state, program.limits, program.waits, has_program, program.log_settings)
            )
            if program.parcel is not None:
                worker.post(program.parcel)
        worker.post(parcel)
        parcel.close()
        worker.queue.append(piece)

    def wait(self, jobs: Collection[int] | None = None, timeout: float | None = None) -> list[tuple[int, Outcome]]:
        """Wait for outcomes and return them."""
        if self._was_forked and jobs is not None and not self._programs.keys() >= set(jobs):
            raise _forked()
        until = None if timeout is None else time.monotonic() + timeout
        while not (taken := take(self._ready, jobs)) and self._busy(jobs):
            remaining = _LOOK_SECONDS if until is None else max(0.0, until - time.monotonic())
            events = self._selector.select(min(remaining, _LOOK_SECONDS))
            self._end_overdue()
            if not events and until is not None and time.monotonic() >= until:
                break
            for key, _ in events:
                if key.data is None:
                    self._hear_zygote()
                elif key.data.number in self._workers and not key.data.lost:
                    self._hear(key.data)
                    while key.data.has_answered and not key.data.lost:
                        self._hear(key.data)
            self._dispatch()
        return taken

    def _end_overdue(self) -> None:
        """Kill workers that cannot enforce their own time limit; checked at intervals."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        for worker in self._workers.values():
            if worker.tally.is_overdue:
                with suppress(OSError):  # without a zygote there is no worker either
                    self._ask(worker.number)

    def _busy(self, jobs: Collection[int] | None) -> bool:
        """Whether an outcome is pending."""
        queues = (self._waiting, *(worker.queue for worker in self._workers.values()))
        return any(jobs is None or piece.job in jobs for queue in queues for piece in queue)

    def _hear(self, worker: WorkerHandle) -> None:
        """Receive one outcome from a worker, or mark the worker lost."""
        problem: BaseException | None = None
        try:
            outcome = worker.inbox.receive()
        except EOFError as error:
            worker.lost = True  # the zygote tells how it ended
            self._selector.unregister(worker.socket)
            if isinstance(error, wire.GarbledError):
                worker.garbled = True
                with suppress(OSError):  # without a zygote there is no worker either
                    self._ask(worker.number)
            return
        except pickle.UnpicklingError as error:
            problem = error.__cause__ or error
        piece = worker.queue.popleft()
        worker.answered += 1
        self._stillborn = 0
        if piece.job not in self._programs:
            return
        if len(piece.works) > 1:
            outcomes = [] if problem else outcome
            self._ready += [
                (piece.job, full_outcome(one, work.key)) for one, work in zip(outcomes, piece.works, strict=False)
            ]
            self._waiting.extendleft(reversed(piece.parts[len(outcomes) :]))
            return
        key = piece.work.key
        answer = lost(piece.work, "convert", problem, worker.name) if problem else full_outcome(outcome, key)
        self._ready.append((piece.job, answer))

    def _hear_zygote(self) -> None:
        """Handle the exit of a worker: its running task failed, and its queued work is requeued."""
        assert self._zygote is not None
        try:
            ended = WorkerExited.receive(self._zygote.control)
        except (EOFError, OSError) as error:
            raise self._broken() from error
        worker = self._workers.get(ended.number)
        if worker is None:
            return
        worker.socket.setblocking(False)  # a process that it left behind may hold its end open
        while not worker.lost:
            self._hear(worker)  # what it sent before it died counts
        if worker.at_work:
            piece = worker.queue.popleft()
            if len(piece.works) > 1:
                self._return(piece.parts)  # one by one: nobody knows which of them it was
            elif piece.job in self._programs:
                self._ready.append((piece.job, self._death(piece.job, piece.work, worker, ended.status)))
        else:
            self._stillborn += 1
        self._return(worker.queue)
        self._drop(worker)
        if self._stillborn > _STILLBORN:
            self.close()
            message = f"workers end before they do any work; the last one {_how(ended.status)}"
            raise ExecutorError(message)

    def _death(self, job: int, work: WorkItem, worker: WorkerHandle, status: int) -> Failed:
        """Return the outcome of the work that a worker was running when it ended."""
        program = self._programs[job]
        limits, retry = rules_of(work, program.limits, program.retry)
        seconds = limits.seconds
        spent = time.monotonic() - worker.tally.since
        position = PositionCells(worker.tally.cells).read() if isinstance(work, Task) else None
        ended_itself = status == OVERTIME and was_overtime(worker.tally.since, seconds)
        if seconds and (ended_itself or worker.tally.is_overdue):
            slow = too_slow(work, seconds)
            outcome = lost(work, "timeout", slow, worker.name, retry=retry)._replace(limit=seconds)
            if position is None and program.ahead and worker.queue:
                outcome = outcome._replace(suspect=True)  # a call of a later task may have blocked the event loop
        else:
            wrote = "was killed: the function wrote to a file descriptor that it did not open"
            how = wrote if worker.garbled else _how(status)
            suspect = status == -signal.SIGKILL and not worker.garbled
            outcome = died(work, f"the worker process {how}", worker.name, retry, suspect=suspect)
        stats = Stats(worker.name, time.time() - spent, spent)
        in_setup = isinstance(work, Task) and PositionCells(worker.tally.cells).in_setup
        return outcome._replace(stats=stats, printed=worker.tally.kept, position=position, setup=in_setup)

    def _drop(self, worker: WorkerHandle) -> None:
        del self._workers[worker.number]
        if not worker.lost:
            self._selector.unregister(worker.socket)
        worker.close()

    def _broken(self) -> ExecutorError:
        """Return the exception for a lost zygote; a later job starts a new one."""
        assert self._zygote is not None
        process = self._zygote.process
        self.close()
        status = process.returncode
        hint = ": its message stands above" if status > 0 else ""
        return ExecutorError(f"the process that workers are forked from {_how(status)}{hint}")

    def close(self) -> None:
        """Stop the workers and the zygote; running work is abandoned."""
        for program in self._programs.values():
            program.close()
        self._programs.clear()
        for worker in list(self._workers.values()):
            if worker.queue and self._zygote is not None:
                with suppress(OSError):  # the zygote is gone, and its workers with it
                    self._ask(worker.number)  # others end by themselves
            self._drop(worker)
        if self._zygote is not None:
            self._selector.unregister(self._zygote.control)
            self._zygote.close()  # it kills what is left and ends
            self._zygote = None
        self._wanted = self._stillborn = 0
        self._waiting.clear()
        self._ready.clear()

    def forget(self) -> None:
        """Drop, in a fork of the driver, the workers of the parent; the next job starts its own."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
        if self._zygote is not None:
            self._zygote.close()
            self._zygote = None
        self._of_parent.append(self._programs)
        self._programs = {}
        self._selector = wire.SpinningSelector()
        self._wanted = self._stillborn = 0
        self._waiting.clear()
        self._ready.clear()
        self._was_forked = True

    def __del__(self) -> None:
        if getattr(self, "_zygote", None) is not None:
            self.close()


_executors: weakref.WeakSet[Processes] = weakref.WeakSet()


def _forget_all() -> None:
    for executor in list(_executors):
        executor.forget()


os.register_at_fork(after_in_child=_forget_all)


def _forked() -> ExecutorError:
    message = (
        "this process was forked while the job ran, and only the process that started a job can continue it: "
        "start a job of its own in the fork"
    )
    return ExecutorError(message)


class _Loaded(NamedTuple):
    """Program as it is sent to each worker."""

    parcel: wire.Message | None
    """Pickled program; ``None`` for calls, which bring their own function."""
    state: ProcessState
    slots: int
    limits: Limits
    retry: Retry
    waits: bool
    bucket: RateLimiter | None
    log_settings: LogSettings | None
    ahead: int
    """Tasks whose calls may start alongside those of another one."""

    def close(self) -> None:
        """Release the shared memory of the program."""
        if self.parcel is not None:
            self.parcel.close()
        if self.bucket is not None:
            self.bucket.close()


def _is_packed(work: WorkItem) -> bool:
    """Whether all user objects in some work are already pickled."""
    return isinstance(work, Call) and not work.retry.on and not any(given.rows for given in work.values)


def _how(status: int) -> str:
    """Describe how a process ended: by an exit status, or if that is negative by a signal."""
    if status >= 0:
        return f"ended with exit status {status}"
    hint = " (out of memory, or by somebody)" if status == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-status).name}{hint}"
