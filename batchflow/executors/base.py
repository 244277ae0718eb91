"""Executor interface: load a program, submit work, wait for outcomes, close."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from batchflow.core.chunks import Key
from batchflow.core.outcomes import Outcome
from batchflow.core.resources import Budget, Resources, available_cpus, capped, count_slots, total_memory
from batchflow.core.work import Call, CombineTables, Task, WorkItem
from batchflow.errors import ResourceError
from batchflow.worker import Program, can_overlap

if TYPE_CHECKING:
    from batchflow.core.rate import Rate, RateLimiter


UNKNOWN = CombineTables((), ())
"""Placeholder for the work in an outcome; the driver knows which work it sent."""
BUNDLE_SECONDS = 0.1
"""Seconds that a worker spends on a batch of short work before it returns the finished results."""


class Executor(ABC):
    """Abstract base class of executors.

    An executor never raises for work: whatever happens to it, each piece of work submitted has one
    outcome. Used as a context manager it stays warm for many jobs; otherwise each job starts and
    closes it.
    """

    name: ClassVar[str]
    prefetch: ClassVar[int]
    """Tasks queued per running one, so that no worker waits for the driver."""
    overlap: ClassVar[int] = 0
    """Tasks queued per running one of I/O-bound calls; their calls start while earlier ones are awaited."""
    elastic: ClassVar[bool] = False
    """Whether the number of task slots changes during a job."""
    bundle: ClassVar[int] = 1
    """Maximum pieces of short work in one batch."""
    ahead: ClassVar[int] = 0
    """Maximum short calls sent ahead to the worker of another call."""
    warm: bool = False

    def slots(self, limits: Resources, per_task: Resources) -> int:
        """Return how many tasks of a job may run concurrently.

        Raises
        ------
        ResourceError
            If not even one fits.
        """
        if limits.needs_ray or per_task.needs_ray:
            message = f"GPUs and custom resources are placed by Ray only, not by {self.name}: use executor=Ray()"
            raise ResourceError(message)
        return count_slots(limits, per_task, available_cpus(), total_memory())

    def budget(self, limits: Resources) -> Budget:
        """Return the resources that all work of a flow may use concurrently."""
        return Budget(capped(limits, available_cpus(), total_memory()))

    def tasks_ahead(self, program: Program) -> int:
        """Return how many queued tasks per running one may start their calls early.

        What the calls of these give counts against the memory of the running one: then it is but one.
        """
        if (program.side_by_side or 1) == 1:
            return 0
        return self.overlap if program.memory is None else min(1, self.overlap)

    def grow(self, workers: int) -> None:  # noqa: B027 - there is nothing to do where they come by themselves
        """Ensure a minimum number of workers, if the executor creates each one itself."""

    def resize(self, job: int, slots: int) -> None:  # noqa: B027 - only an elastic one need do anything
        """Set the number of tasks of a program that may run concurrently."""

    @property
    def logs(self) -> str:
        """Log file or folder of the engine, if its messages do not go to the terminal."""
        return ""

    @abstractmethod
    def start(self, slots: int, per_task: Resources, workers: int | None = None) -> None:
        """Prepare for this many concurrent tasks; workers already started are kept.

        Parameters
        ----------
        workers
            How many to begin with, where each is made by hand; by default one for each task.
        """

    @abstractmethod
    def load(self, program: Program) -> int:
        """Send a program to the workers, or prepare it for sending; return its number.

        Raises
        ------
        FunctionError
            If it cannot be pickled.
        """

    @abstractmethod
    def unload(self, job: int) -> None:
        """Unload a program and drop the outcomes of its running work."""

    @abstractmethod
    def submit(self, job: int, work: WorkItem) -> None:
        """Submit one piece of work; returns at once."""

    def submit_all(self, job: int, works: Sequence[WorkItem]) -> None:
        """Submit short work, to one worker if that is cheaper."""
        for work in works:
            self.submit(job, work)

    def follow(self, job: int, calls: Sequence[Call], last: Key) -> int:
        """Send calls ahead to the worker of another call; returns how many were sent.

        One is not begun where the one before it failed, or a value is not there that was to come from it, or
        the worker is gone: its outcome is `Unbegun` then.

        Parameters
        ----------
        calls
            In the order in which they are to be done: those that are not sent are the last ones.
        last
            Key of what was sent to the worker last.
        """
        return 0

    def recall(self, job: int, key: Key) -> list[Key]:
        """Recall work sent ahead to a worker that has not started; return the keys."""
        return []

    @abstractmethod
    def wait(self, jobs: Collection[int] | None = None, timeout: float | None = None) -> list[tuple[int, Outcome]]:
        """Wait for outcomes and return them, each with the number of its program.

        Parameters
        ----------
        jobs
            Wait for outcomes of these programs only; those of others are kept for whoever asks for them.
        timeout
            Seconds after which to give up; there is no outcome then.
        """

    def bucket(self, rate: Rate) -> RateLimiter:
        """Return the limiter that holds all workers of a job to one rate; `unload` closes it."""
        from batchflow.executors.rate_limiter import FileRateLimiter  # a worker makes none

        return FileRateLimiter(rate)

    def limited(self, program: Program) -> Program:
        """Return a program with its rate limiter, if it has a rate."""
        return program if program.rate is None else program._replace(bucket=self.bucket(program.rate))

    def fetch(self, payload: Any) -> Any:
        """Return the rows that the payload of an outcome refers to."""
        return payload

    @abstractmethod
    def close(self) -> None:
        """Stop all workers and remove all resources; idempotent."""

    def __enter__(self) -> Self:
        self.warm = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.warm = False
        self.close()


def take(ready: list[tuple[int, Outcome]], jobs: Collection[int] | None) -> list[tuple[int, Outcome]]:
    """Remove from a list the outcomes of some programs, or all of them, and return them."""
    taken = [item for item in ready if jobs is None or item[0] in jobs]
    if taken:
        ready[:] = [item for item in ready if jobs is not None and item[0] not in jobs]
    return taken


def later_task(waiting: Sequence[WorkItem], index: int) -> Task | None:
    """Return a queued task whose calls may start alongside the running ones."""
    if index >= len(waiting):
        return None
    work = waiting[index]
    return work if isinstance(work, Task) and can_overlap(work) else None
