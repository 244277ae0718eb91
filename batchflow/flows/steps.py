"""Steps of a flow as frozen values, and the handles of their values."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from batchflow.core.resources import Resources
from batchflow.core.retry import NEVER, Retry
from batchflow.core.serialization import LoadedFunction, Pickled, PickledFunction
from batchflow.errors import UsageError
from batchflow.reporting.graph.analysis import GraphNode
from batchflow.worker import StepHandle

if TYPE_CHECKING:
    from pyarrow import Table

    from batchflow.flows.flow import Flow


DEFAULT_RESOURCES = Resources()
"""Default resources of a step; one shared object makes comparison fast."""


class StepInput(NamedTuple):
    """Input of a step from other steps."""

    steps: tuple[int, ...]
    """Numbers of these steps."""
    single: bool = True
    """Whether it is the value of one step rather than a list."""
    tolerant: bool = False
    """Whether failures are passed too."""
    min_success: float = 0.0
    """Minimum share of successful steps."""


@dataclass(frozen=True)
class StepSpec:
    """Complete definition of a step."""

    name: str
    fn: PickledFunction | LoadedFunction | None
    """Function of the step; ``None`` for a job."""
    arguments: Pickled
    """Positional and keyword arguments; for a job its input and ``args=``."""
    needs: tuple[StepInput, ...] = ()
    """Inputs that replace the placeholders in the arguments."""
    after: tuple[int, ...] = ()
    when: int | PickledFunction | LoadedFunction | None = None
    """Condition: the number of an input, or a function of the arguments."""
    default: Pickled | None = None
    retry: Retry = NEVER
    timeout: float | None = None
    per_task: Resources = DEFAULT_RESOURCES
    keep: str | None = None
    """Location on disk where the value is cached."""
    key: str = ""
    """Digest of its function and of its own arguments, if requested."""
    job: Mapping[str, Any] | None = None
    """Options of the job."""
    read: PickledFunction | LoadedFunction | None = None
    """Function that builds the source of a job from its input."""

    @property
    def parents(self) -> set[int]:
        """Numbers of all steps that it depends on."""
        return {number for need in self.needs for number in need.steps} | set(self.after)


class Step(StepHandle):
    """Step of a flow, and the handle of its value: passing it to another step creates an edge."""

    __slots__ = ("flow", "number")

    def __init__(self, flow: Flow, number: int) -> None:
        self.flow: Flow = flow
        self.number: int = number

    @property
    def name(self) -> str:
        """Name of the step."""
        return self.flow.steps[self.number].name

    def __repr__(self) -> str:
        return f"<Step {self.name!r} of {self.flow.name!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Step) and (self.flow, self.number) == (other.flow, other.number)

    def __hash__(self) -> int:
        return hash((id(self.flow), self.number))

    def __iter__(self) -> Any:
        message = (
            f"{self!r} stands for a value that is not there yet, so it cannot be looped over or unpacked: "
            "do that in a step that takes it, or map over it with flow.map_records"
        )
        raise UsageError(message)

    def __bool__(self) -> bool:
        message = (
            f"{self!r} stands for a value that is not there yet, so it is neither true nor false: "
            "give the step that depends on it when=<this step>"
        )
        raise UsageError(message)


class FailureTolerantInput(StepHandle):
    """Handle of steps whose failures are passed on with their values."""

    __slots__ = ("min_success", "single", "steps")

    def __init__(self, steps: Sequence[Step], min_success: float, *, single: bool) -> None:
        self.steps: tuple[Step, ...] = tuple(steps)
        self.min_success: float = min_success
        self.single: bool = single


def flows_of(handle: Step | FailureTolerantInput) -> list[Flow]:
    """Return the flows that the steps of a handle belong to."""
    return [handle.flow] if isinstance(handle, Step) else [step.flow for step in handle.steps]


def need_of(handle: Step | FailureTolerantInput) -> tuple[StepInput, Sequence[Step]]:
    """Return the input for a handle in the arguments, and the steps that produce it."""
    if isinstance(handle, Step):
        return StepInput((handle.number,)), [handle]
    numbers = tuple(step.number for step in handle.steps)
    return StepInput(numbers, handle.single, True, handle.min_success), handle.steps


def unused(name: str, names: Collection[str], counted: dict[str, int]) -> str:
    """Return an unused name, with a number appended if necessary.

    Parameters
    ----------
    counted
        The last number given to each name, kept by the caller.
    """
    new = name
    while new in names:
        counted[name] = counted.get(name, 1) + 1
        new = f"{name} {counted[name]}"
    return new


def nodes_of(specs: Sequence[StepSpec]) -> list[GraphNode]:
    """Return the steps of a flow that has not run as nodes of a graph."""
    return [
        GraphNode(
            spec.name,
            tuple(dict.fromkeys(number for need in spec.needs for number in need.steps)),
            spec.after,
            "step" if spec.fn is not None else "map",
        )
        for spec in specs
    ]


class JobOptions(TypedDict, total=False):
    """Options of a job step; see `batchflow.map_records`."""

    into: str | os.PathLike[str] | None
    format: str | None
    setup: Callable[[], Any] | None
    combine: Callable[[Table], Any] | None
    per_task: Resources
    retry: Retry
    timeout: float | None
    concurrency: int | None
    rate: float | str | None
    max_errors: int | float | None
    isolate: bool | None
    chunk: int | str | None
    part_size: int | str
    version: str | None
    fresh: bool
