"""Runtime state of a step: dependencies, value, result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from batchflow.combiner.error_table import joined
from batchflow.combiner.result import Result
from batchflow.core.outcomes import Failure
from batchflow.core.resources import amounts
from batchflow.core.text import printable
from batchflow.core.work import ArgumentSlot, Call, StepValue
from batchflow.flows.result import State, StepRun
from batchflow.flows.steps import DEFAULT_RESOURCES, StepInput, StepSpec
from batchflow.io.sources import Source
from batchflow.io.step_cache import CacheEntry
from batchflow.jobs.run import JobRun, Resumable
from batchflow.reporting.graph.analysis import GraphNode
from batchflow.reporting.report import Report
from batchflow.worker import value_of

if TYPE_CHECKING:
    import pyarrow as pa

    from batchflow.flows.calls import WorkerPipeline


class RunningJob(NamedTuple):
    """Running job of a step."""

    run: JobRun
    work: Resumable[Result]


@dataclass(slots=True, eq=False)
class StepState:
    """Runtime state of a step."""

    spec: StepSpec
    number: int
    needs: Sequence[tuple[StepInput, Sequence[StepState]]] = ()
    after: Sequence[StepState] = ()
    waits: int = 0
    """Number of dependencies that have not ended."""
    next: list[StepState] = field(default_factory=list)
    """Dependents of the step."""
    takers: int = 0
    """Number of steps that still need its value."""
    kept: bool = False
    """Whether its value is kept after all dependents have used it."""
    given: StepValue | None = None
    """Value of the step."""
    digest: str = ""
    """Digest of its value, if requested and available."""
    digests: bool = False
    """Whether the digest is requested."""
    place: CacheEntry | None = None
    """Cache entry of its value."""
    state: State | None = None
    why: str = ""
    broken: bool = False
    """Whether it has no value because of a failure."""
    returned: bool = False
    """Whether its value consists of the values of steps that it returned."""
    last: Failure | None = None
    """Failure of the last attempt."""
    line: WorkerPipeline | None = None
    """Pipeline that holds the call while it is submitted."""
    seconds: float = 0.0
    """Expected duration of the call in its pipeline."""
    ahead: bool = False
    """Whether the call was sent ahead and is not known to have started."""
    attempts: int = 0
    begun: float = 0.0
    """Submission time of the last attempt."""
    start: float | None = None
    """Start time of the first attempt."""
    end: float | None = None
    worker: str = ""
    errors: list[pa.Table] = field(default_factory=list)
    succeeded: int = 0
    """Number of successes: the step itself, or its records."""
    failed: int = 0
    report: Report | None = None

    @property
    def can_follow(self) -> bool:
        """Whether it may be sent ahead of its input values, which need no processing on the driver."""
        spec = self.spec
        return spec.fn is not None and spec.keep is None and not any(need.tolerant for need, _ in self.needs)

    @property
    def takes(self) -> tuple[tuple[str, float], ...]:
        """Resources that it takes from the budget."""
        return _TAKES if self.spec.per_task is DEFAULT_RESOURCES else tuple(amounts(self.spec.per_task).items())


_TAKES = tuple(amounts(DEFAULT_RESOURCES).items())


def build_call(step: StepState) -> Call:
    """Return one attempt at a step, with its input values."""
    values: dict[int, int] = {}
    given: list[StepValue] = []
    places = []
    for need, steps in step.needs:
        at: list[int | None] = []
        for giver in steps:
            value = giver.given if giver.line is None else StepValue(earlier=(giver.number,))
            if value is not None and giver.number not in values:
                values[giver.number] = len(given)
                given.append(value)
            if value is not None or not need.tolerant:
                at.append(values.get(giver.number))
        told = _tolerant(steps, single=need.single) if need.tolerant else None
        places.append(ArgumentSlot(tuple(at), told, need.single))
    spec = step.spec
    return Call(
        (step.number,),
        spec.fn,
        spec.arguments,
        tuple(given),
        tuple(places),
        spec.when,
        spec.timeout,
        spec.per_task.nbytes,
        spec.retry,
        step.place,
        step.digests,
    )


def cache_entry_for(step: StepState) -> CacheEntry | None:
    """Return the cache entry of a step, for its function and all of its arguments."""
    if step.spec.keep is None:
        return None
    total = hashlib.sha256(step.spec.key.encode())
    for _, steps in step.needs:
        total.update(repr([(one.digest, one.succeeded, one.failed) for one in steps]).encode())
    known = step.spec.key and all(one.digest or one.given is None for _, steps in step.needs for one in steps)
    return CacheEntry(step.spec.keep, total.hexdigest() if known else "")


def job_digest(step: StepState, source: Source) -> str:
    """Return a digest of a job's result, computed from its inputs before it runs."""
    inputs = source.identified(source.inputs())
    others = [one.digest for _, steps in step.needs[1:] for one in steps]  # the first one gave the source
    if not step.spec.key or not all(others) or not all(item.version for item in inputs):
        return ""
    what = (step.spec.key, source.kind, source.options(), inputs, others)
    return hashlib.sha256(repr(what).encode()).hexdigest()


def _tolerant(steps: Sequence[StepState], *, single: bool) -> tuple[Any, int, int]:
    """Return the error table of some steps with their success and failure counts; of a job, its records."""
    return joined(list(errors_of(steps))), *_counts(steps, single=single)


def errors_of(steps: Iterable[StepState]) -> Iterator[tuple[str, pa.Table]]:
    """Yield the errors of some steps, with the name of each."""
    for step in steps:
        for errors in step.errors:
            yield step.spec.name, errors


def _counts(steps: Sequence[StepState], *, single: bool) -> tuple[int, int]:
    """Return the success and failure counts of some steps; of a single job step, its records."""
    if single and steps[0].report is not None:
        return steps[0].succeeded, steps[0].failed
    return sum(step.given is not None for step in steps), sum(step.broken for step in steps)


def why_not_runnable(step: StepState) -> tuple[str, bool] | None:
    """Return why a step cannot run after its dependencies ended, and whether a failure is the cause."""
    if not step.needs and not step.after:
        return None
    lost = [giver for need, steps in step.needs if not need.tolerant for giver in steps if giver.given is None]
    lost = [*lost, *(one for one in step.after if one.broken)]
    if lost:
        first = next((one for one in lost if one.broken), lost[0])
        return f"{first.spec.name!r} {'failed' if first.state == 'failed' else f'was {first.state}'}", first.broken
    for need, steps in step.needs:
        good, bad = _counts(steps, single=need.single)
        if need.tolerant and good < need.min_success * (good + bad):
            return f"only {good:,} of {good + bad:,} succeeded, less than min_success={need.min_success:g}", True
    return None


def to_step_run(step: StepState, fetch: Callable[[Any], Any], used: Callable[[], None]) -> StepRun:
    """Return the result of a step.

    Parameters
    ----------
    fetch
        Returns what a payload of its value is a reference to.
    used
        Called when somebody takes the value.
    """
    assert step.state is not None
    opened = None if step.given is None else _LazyValue(step.given, fetch)
    return StepRun(
        step.spec.name,
        step.state,
        step.why,
        step.attempts,
        step.start,
        step.end,
        step.worker,
        step.report,
        opened,
        used,
    )


class _LazyValue:
    """Value of a step, unpickled on first use."""

    __slots__ = ("_fetch", "_given", "_value")

    def __init__(self, given: StepValue, fetch: Callable[[Any], Any]) -> None:
        self._given: StepValue | None = given
        self._fetch = fetch

    def __call__(self) -> Any:
        if self._given is not None:
            self._value = value_of(self._given, self._fetch)
            self._given = None
        return self._value


def nodes_of_run(steps: Iterable[StepState]) -> Iterator[GraphNode]:
    """Yield steps as nodes of a graph, each after its dependencies, including returned steps."""
    at: dict[int, int] = {}
    left = list(reversed(list(steps)))
    while left:
        step = left[-1]
        before = [one for _, givers in step.needs for one in givers] + list(step.after)
        missing = [one for one in before if one.number not in at]
        if step.number in at:
            left.pop()
        elif missing:
            left += reversed(missing)
        else:
            left.pop()
            at[step.number] = len(at)
            needs = dict.fromkeys(at[one.number] for _, givers in step.needs for one in givers)
            after = dict.fromkeys(at[one.number] for one in step.after)
            yield GraphNode(
                step.spec.name,
                tuple(needs),
                tuple(after),
                "step" if step.spec.fn is not None else "map",
                step.state or "",
                step.begun if step.returned else step.start,
                step.end,
                printable(step.why),
                None if step.report is None else step.report.task_seconds,
            )
