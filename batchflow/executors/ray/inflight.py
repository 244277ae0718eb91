"""Work in flight on Ray, and a local worker that assembles parts only the driver sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from batchflow.core.outcomes import Failed, Outcome
from batchflow.core.resources import Resources
from batchflow.core.retry import Retry
from batchflow.core.work import AssemblePart, WorkItem
from batchflow.executors.processes.executor import Processes
from batchflow.executors.program_loading import rules_of
from batchflow.io.sources import Source
from batchflow.worker import CALLS, Limits, died, lost, too_slow, was_overtime

if TYPE_CHECKING:
    from batchflow.core.rate import RateLimiter


class LocalAssembler:
    """Worker process next to the driver, started on first use."""

    def __init__(self) -> None:
        self._processes = Processes(workers=1)
        self._programs: dict[int, int] = {}
        """Local program numbers by job; assembly needs no program of the job."""
        self._under_way: Counter[int] = Counter()

    @property
    def busy(self) -> bool:
        """Whether any work is running."""
        return any(self._under_way.values())

    @property
    def jobs(self) -> list[int]:
        """Jobs with running work."""
        return [job for job, count in self._under_way.items() if count]

    def submit(self, job: int, work: AssemblePart) -> None:
        """Submit work of a job."""
        if job not in self._programs:
            self._processes.start(1, Resources())
            self._programs[job] = self._processes.load(CALLS)
        self._under_way[job] += 1
        self._processes.submit(self._programs[job], work)

    def wait(self, timeout: float | None) -> list[tuple[int, Outcome]]:
        """Wait for outcomes and return them, each with its job."""
        jobs = {program: job for job, program in self._programs.items()}
        found = [(jobs[program], outcome) for program, outcome in self._processes.wait(timeout=timeout)]
        self._under_way.subtract(job for job, _ in found)
        return found

    def forget(self, job: int) -> None:
        """Cancel the work of a job."""
        program = self._programs.pop(job, None)
        if program is not None:
            self._processes.unload(program)
            del self._under_way[job]

    def close(self) -> None:
        """Stop the worker process."""
        self._processes.close()
        self._programs.clear()
        self._under_way.clear()


_GONE = ("NodeDiedError", "ObjectLostError", "LocalRayletDiedError", "NodeDrainedError")
"""Ray errors without fault of the work: its node or its input is gone."""


class RayJob(NamedTuple):
    """State of a job at the executor."""

    key: str
    """Identifier of the job for workers."""
    told: bytes | None
    """Pickled notice of the job, ``None`` if it is large."""
    notice: Any
    """Reference to a large notice."""
    perform: Any
    """Remote function with the resource request of one task."""
    per_task: Resources
    room: int
    """Maximum tasks at Ray."""
    limits: Limits
    retry: Retry
    bucket: RateLimiter | None
    source: Source | None
    """Source of its files."""
    pieces: str
    mark: str
    has_setup: bool
    ships: bool = False
    """Whether some worker did not see the input."""
    writes: bool = False
    """Whether some worker did not see the output, so that parts are assembled next to the driver."""


class SentTask(NamedTuple):
    """Task at Ray."""

    job: int
    works: Sequence[WorkItem]
    """One or more short pieces of work."""
    rows: Any
    """Reference to the result of the last piece."""
    since: float
    """`time.monotonic` when it was sent."""

    @property
    def work(self) -> WorkItem:
        """The single piece of work."""
        (work,) = self.works
        return work


def read_replies(heads: list[Any]) -> list[Any]:
    """Return the answers of workers or their errors, in one call since each takes Ray time."""
    import ray

    try:
        return list(ray.get(heads))
    except ray.exceptions.RayError as error:
        if len(heads) == 1:
            return [error]
        return [answer for head in heads for answer in read_replies([head])]


def death_outcome(job: RayJob, sent: SentTask, error: Exception) -> Failed:
    """Return the outcome of work that Ray lost, with Ray's information on the cause.

    Ray does not hand over how a worker ended. It is innocent until tried alone, for Ray's own memory watch may
    have picked it; and altogether where its node is gone.
    """
    import ray

    limits, retry = rules_of(sent.work, job.limits, job.retry)
    seconds = limits.seconds
    gone = any(kind.__name__ in _GONE for kind in type(error).__mro__)
    if seconds and not gone and was_overtime(sent.since, seconds):
        outcome = lost(sent.work, "timeout", too_slow(sent.work, seconds), "", retry=retry)
        return outcome._replace(limit=seconds)
    cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    set_up = isinstance(error, ray.exceptions.RuntimeEnvSetupError)
    what = "its environment cannot be made" if set_up else "the Ray worker died"
    message = f"{what}: {type(error).__name__}: {cause}"
    suspect = not isinstance(error, ray.exceptions.WorkerCrashedError)
    outcome = died(sent.work, message, "", retry, suspect=suspect)
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return outcome._replace(failure=outcome.failure._replace(phase="memory"), helped=False)
    return outcome._replace(gone=gone)
