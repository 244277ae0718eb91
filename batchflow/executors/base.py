"""The contract of executors: load a program, submit work, wait for outcomes, close."""

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
"""Stands for work in an outcome where it is not at hand; the driver knows which it sent."""
BUNDLE_SECONDS = 0.1
"""How long a worker goes on with short work that came together, before it gives back what is done."""


class Executor(ABC):
    """Where tasks run.

    An executor never raises for work: whatever happens to it, each piece of work submitted has one
    outcome. Used as a context manager it stays warm for many jobs; otherwise each job starts and
    closes it.
    """

    name: ClassVar[str]
    prefetch: ClassVar[int]
    """Tasks that wait beside each running one, so that a worker need not wait for the driver."""
    overlap: ClassVar[int] = 0
    """Tasks that wait beside each running one if calls wait: theirs begin as the last ones are waited for."""
    elastic: ClassVar[bool] = False
    """Whether there is room for more tasks, or for fewer, as time goes by."""
    bundle: ClassVar[int] = 1
    """Pieces of short work that it likes to have together, at most."""
    ahead: ClassVar[int] = 0
    """Short calls that may be sent ahead to the worker of another one, at most."""
    warm: bool = False

    def slots(self, limits: Resources, per_task: Resources) -> int:
        """Return how many tasks of a job may run side by side.

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
        """Return what may be in use at the same time, by all the work of a flow."""
        return Budget(capped(limits, available_cpus(), total_memory()))

    def tasks_ahead(self, program: Program) -> int:
        """Return how many tasks may wait beside each running one so that their calls can begin.

        What the calls of these give counts against the memory of the running one: then it is but one.
        """
        if (program.side_by_side or 1) == 1:
            return 0
        return self.overlap if program.memory is None else min(1, self.overlap)

    def grow(self, workers: int) -> None:  # noqa: B027 - there is nothing to do where they come by themselves
        """Have at least so many workers, where each is made by hand."""

    def resize(self, job: int, slots: int) -> None:  # noqa: B027 - only an elastic one need do anything
        """Let so many tasks of a program run side by side from now on."""

    @property
    def logs(self) -> str:
        """File or folder of messages of the engine, if they do not go to the terminal."""
        return ""

    @abstractmethod
    def start(self, slots: int, per_task: Resources, workers: int | None = None) -> None:
        """Make ready for this many tasks side by side; what is started already is kept.

        Parameters
        ----------
        workers
            How many to begin with, where each is made by hand; by default one for each task.
        """

    @abstractmethod
    def load(self, program: Program) -> int:
        """Ship a program to the workers, or make it ready to be; return its number.

        Raises
        ------
        FunctionError
            If it cannot be pickled.
        """

    @abstractmethod
    def unload(self, job: int) -> None:
        """Forget a program; outcomes of its work that are still under way are dropped."""

    @abstractmethod
    def submit(self, job: int, work: WorkItem) -> None:
        """Take over one piece of work; returns at once."""

    def submit_all(self, job: int, works: Sequence[WorkItem]) -> None:
        """Take over work that is short, for one worker if that is cheaper."""
        for work in works:
            self.submit(job, work)

    def follow(self, job: int, calls: Sequence[Call], last: Key) -> int:
        """Send calls ahead, to be done by the worker of another one after it; returns how many could be.

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
        """Take back what was sent ahead to the worker of some work and did not begin; return the keys."""
        return []

    @abstractmethod
    def wait(self, jobs: Collection[int] | None = None, timeout: float | None = None) -> list[tuple[int, Outcome]]:
        """Return the outcomes there are, each with the number of its program; waits for the first one.

        Parameters
        ----------
        jobs
            Wait for outcomes of these programs only; those of others are kept for whoever asks for them.
        timeout
            Seconds after which to give up; there is no outcome then.
        """

    def bucket(self, rate: Rate) -> RateLimiter:
        """Return what keeps all workers of a job to a rate together; `unload` closes it."""
        from batchflow.executors.rate_limiter import FileRateLimiter  # a worker makes none

        return FileRateLimiter(rate)

    def limited(self, program: Program) -> Program:
        """Return a program with its bucket, if it has a rate."""
        return program if program.rate is None else program._replace(bucket=self.bucket(program.rate))

    def fetch(self, payload: Any) -> Any:
        """Return the rows that a payload of an outcome stands for."""
        return payload

    @abstractmethod
    def close(self) -> None:
        """Stop all workers and remove all that was made; may be called again."""

    def __enter__(self) -> Self:
        self.warm = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.warm = False
        self.close()


def take(ready: list[tuple[int, Outcome]], jobs: Collection[int] | None) -> list[tuple[int, Outcome]]:
    """Take the outcomes of some programs, or all of them, off a list."""
    taken = [item for item in ready if jobs is None or item[0] in jobs]
    if taken:
        ready[:] = [item for item in ready if jobs is not None and item[0] not in jobs]
    return taken


def later_task(waiting: Sequence[WorkItem], index: int) -> Task | None:
    """Return a task that waits for a worker, if its calls may begin beside those before."""
    if index >= len(waiting):
        return None
    work = waiting[index]
    return work if isinstance(work, Task) and can_overlap(work) else None
