"""In-process executor: one task at a time, for debugging and as the baseline of other executors."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from typing import ClassVar, cast

from batchflow.core.outcomes import Outcome, Succeeded
from batchflow.core.process_state import go_home, working_directory
from batchflow.core.resources import Budget, Resources, available_cpus, capped, total_memory
from batchflow.core.serialization import copied, dumps_out_of_band, pack_shared
from batchflow.core.work import Call, Task, WorkItem
from batchflow.executors.base import Executor, later_task
from batchflow.io.arrow.rows import Rows
from batchflow.worker import Program, Runner, lost
from batchflow.worker.stdio_capture import DriverCapture


class Serial(Executor):
    """Runs tasks in this process, so that breakpoints in the function work."""

    name: ClassVar[str] = "serial"
    prefetch: ClassVar[int] = 0
    overlap: ClassVar[int] = 8

    def __init__(self) -> None:
        self._runners: dict[int, Runner] = {}
        self._programs: dict[int, Program] = {}
        self._loaded = 0
        self._queue: deque[tuple[int, WorkItem]] = deque()
        self._here = DriverCapture()

    def slots(self, limits: Resources, per_task: Resources) -> int:
        """Return 1, if a task fits at all."""
        return min(1, super().slots(limits, per_task))

    def budget(self, limits: Resources) -> Budget:
        """Return the budget of a flow: one task at a time."""
        return Budget(capped(limits, available_cpus(), total_memory()), 1)

    def start(self, slots: int, per_task: Resources, workers: int | None = None) -> None:
        """Do nothing: there is nothing to start."""

    def load(self, program: Program) -> int:
        """Keep a program; its arguments are copied, and arrays in them read-only, as they are for each worker."""
        self._loaded += 1
        program = self.limited(program)
        if program.args:
            with suppress(Exception):  # what cannot be pickled works here all the same, for a debugger
                program = program._replace(args=pack_shared(dict(program.args)).open())
        self._programs[self._loaded] = program
        self._runners[self._loaded] = Runner(program)
        return self._loaded

    def unload(self, job: int) -> None:
        """Unload a program and drop its work."""
        if job in self._runners:
            self._runners.pop(job).close()
            bucket = self._programs.pop(job).bucket
            if bucket is not None:
                bucket.close()
        self._queue = deque(item for item in self._queue if item[0] != job)

    def submit(self, job: int, work: WorkItem) -> None:
        """Append work to the queue."""
        self._queue.append((job, work))

    def wait(self, jobs: Collection[int] | None = None, timeout: float | None = None) -> list[tuple[int, Outcome]]:
        """Run the next piece of work and return its outcome."""
        for at, (owner, work) in enumerate(self._queue):
            if jobs is None or owner in jobs:
                del self._queue[at]
                return [(owner, self._perform(owner, work))]
        return []

    def _perform(self, job: int, work: WorkItem) -> Outcome:
        folder = working_directory()
        try:
            with self._here:
                outcome = self._runners[job].perform(_received(work), partial(self._later, job))
        finally:
            go_home(folder)
        outcome = _sent(work, outcome)
        prints = self._here.prints
        return outcome._replace(printed=prints.take()) if prints else outcome

    def _later(self, job: int, index: int) -> Task | None:
        """Return a queued task of a job."""
        waiting = [work for owner, work in self._queue if owner == job]
        task = later_task(waiting, index)
        return None if task is None else cast("Task", _received(task))

    def close(self) -> None:
        """Drop all programs and work."""
        for job in list(self._runners):
            self.unload(job)
        self._queue.clear()


def _received(work: WorkItem) -> WorkItem:
    """Return a copy of work, as a worker would receive it; the driver never sees the function's changes."""
    if isinstance(work, Task) and work.data is not None:
        return work._replace(data=copied(work.data))
    if isinstance(work, Call) and any(given.rows for given in work.values):
        return work._replace(values=copied(work.values))
    return work


def _sent(work: WorkItem, outcome: Outcome) -> Outcome:
    """Return an outcome as a worker would send it; rows that cannot be pickled are a failure."""
    if not isinstance(outcome, Succeeded) or not isinstance(outcome.payload, Rows):
        return outcome
    try:
        dumps_out_of_band(outcome.payload)
    except Exception as error:
        return lost(work, "convert", error)
    return outcome
