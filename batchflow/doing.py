"""A step on its way: what it waits for, what it gave, what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from batchflow.combining.errors_table import joined, of_step
from batchflow.combining.result import Result
from batchflow.flow_run import State
from batchflow.graph import Node
from batchflow.model import Call, Given, Place
from batchflow.printable import printable
from batchflow.report import Report
from batchflow.resources import amounts
from batchflow.running import Run, Work
from batchflow.steps import Need, StepSpec

if TYPE_CHECKING:
    import pyarrow as pa


class JobUnderWay(NamedTuple):
    """A step that is a whole job, under way."""

    run: Run
    work: Work[Result]


@dataclass(slots=True, eq=False)
class Doing:
    """A step on its way."""

    spec: StepSpec
    number: int
    needs: Sequence[tuple[Need, Sequence[Doing]]] = ()
    after: Sequence[Doing] = ()
    waits: int = 0
    """Steps before it that have not come to their end."""
    next: list[Doing] = field(default_factory=list)
    """Steps that wait for it."""
    takers: int = 0
    """Steps that are still to take its value."""
    given: Given | None = None
    """Its value."""
    state: State | None = None
    why: str = ""
    broken: bool = False
    """It has no value because something failed."""
    returned: bool = False
    """Its value is made of those of steps that it returned."""
    attempts: int = 0
    begun: float = 0.0
    """When the last try was handed over,"""
    start: float | None = None
    """and when the first one really began."""
    end: float | None = None
    worker: str = ""
    errors: list[pa.Table] = field(default_factory=list)
    succeeded: int = 0
    """Itself, or its records."""
    failed: int = 0
    report: Report | None = None
    job: JobUnderWay | None = None

    @property
    def takes(self) -> tuple[tuple[str, float], ...]:
        """What it takes of the budget."""
        return tuple(amounts(self.spec.per_task).items())


def call_of(step: Doing) -> Call:
    """Return one attempt at a step, with what others gave."""
    values: dict[int, int] = {}
    given: list[Given] = []
    places = []
    for need, steps in step.needs:
        at: list[int | None] = []
        for giver in steps:
            if giver.given is not None and giver.number not in values:
                values[giver.number] = len(given)
                given.append(giver.given)
            if giver.given is not None or not need.tolerant:
                at.append(values.get(giver.number))
        places.append(Place(tuple(at), _tolerant(steps) if need.tolerant else None, need.single))
    spec = step.spec
    return Call(
        (step.number,), spec.fn, spec.arguments, tuple(given), tuple(places), spec.when, spec.timeout,
        spec.per_task.nbytes, spec.retry,
    )  # fmt: skip


def _tolerant(steps: Sequence[Doing]) -> tuple[Any, int, int]:
    """Return the error table of some steps, and how many of them succeeded and failed; of a job, its records."""
    return errors_of(steps), *_counts(steps)


def errors_of(steps: Iterable[Doing]) -> pa.Table:
    """Return what failed of some steps as one table."""
    return joined([of_step(errors, step.spec.name) for step in steps for errors in step.errors])


def _counts(steps: Sequence[Doing]) -> tuple[int, int]:
    if len(steps) == 1:
        return steps[0].succeeded, steps[0].failed
    good = sum(step.given is not None for step in steps)
    return good, len(steps) - good


def missing(step: Doing) -> str | None:
    """Return why a step cannot run although nothing is left to come to it; ``None`` if it can."""
    for need, steps in step.needs:
        if need.tolerant:
            good, bad = _counts(steps)
            if good < need.min_success * (good + bad):
                return f"only {good:,} of {good + bad:,} succeeded, less than min_success={need.min_success:g}"
        elif steps[0].given is None:
            return _because(steps[0])
    return next((_because(one) for one in step.after if one.broken), None)


def _because(step: Doing) -> str:
    return f"{step.spec.name!r} {'failed' if step.state == 'failed' else f'was {step.state}'}"


def nodes_of_run(steps: Iterable[Doing]) -> Iterator[Node]:
    """Yield steps as nodes of a graph, each behind those that it takes: also where it returned them itself."""
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
            yield Node(
                step.spec.name, tuple(needs), tuple(after), "step" if step.spec.fn is not None else "map",
                step.state or "", step.begun if step.returned else step.start, step.end, printable(step.why),
                None if step.report is None else step.report.task_seconds,
            )  # fmt: skip
