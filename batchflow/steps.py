"""Steps of a flow as frozen values, and the handles that stand for what they give."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from batchflow.errors import UsageError
from batchflow.graph import Node
from batchflow.packing import Arrived, Packed, Shipped
from batchflow.resources import Resources
from batchflow.retry import NEVER, Retry
from batchflow.worker import Handle

if TYPE_CHECKING:
    from batchflow.flow import Flow


ONE_CORE = Resources()
"""What a step takes by itself: one object for all, so that steps which take the same are told at a glance."""


class Need(NamedTuple):
    """What a step takes of others."""

    steps: tuple[int, ...]
    """Their numbers."""
    single: bool = True
    """The value of one, not a list."""
    tolerant: bool = False
    """Failures too."""
    min_success: float = 0.0
    """Share that must have succeeded."""


@dataclass(frozen=True)
class StepSpec:
    """Everything that says what a step does."""

    name: str
    fn: Shipped | Arrived | None
    """``None``: it is a job."""
    arguments: Packed
    """Positional and keyword ones; of a job its input and ``args=``."""
    needs: tuple[Need, ...] = ()
    """What goes into the places of the arguments."""
    after: tuple[int, ...] = ()
    when: int | Shipped | Arrived | None = None
    """Number of the need that says whether to run, or a function of the arguments."""
    default: Packed | None = None
    retry: Retry = NEVER
    timeout: float | None = None
    per_task: Resources = ONE_CORE
    keep: str | None = None
    """Where its value is kept on disk, and told again in the place of running."""
    key: str = ""
    """Digits of its function and of its own arguments, where they are asked for."""
    job: Mapping[str, Any] | None = None
    """Options of the job."""
    read: Shipped | Arrived | None = None
    """What makes a source of the input of a job."""

    @property
    def parents(self) -> set[int]:
        """Numbers of all the steps that come before it."""
        return {number for need in self.needs for number in need.steps} | set(self.after)


class Step(Handle):
    """A step of a flow, and the handle of what it gives: passed to another step, it is an edge."""

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


class Tolerant(Handle):
    """Steps together with what failed of them."""

    __slots__ = ("min_success", "single", "steps")

    def __init__(self, steps: Sequence[Step], min_success: float, *, single: bool) -> None:
        self.steps: tuple[Step, ...] = tuple(steps)
        self.min_success: float = min_success
        self.single: bool = single


def flows_of(handle: Step | Tolerant) -> list[Flow]:
    """Return the flows that the steps of a handle are of."""
    return [handle.flow] if isinstance(handle, Step) else [step.flow for step in handle.steps]


def need_of(handle: Step | Tolerant) -> tuple[Need, Sequence[Step]]:
    """Return what a step takes that has a handle among its arguments, and the steps that give it."""
    if isinstance(handle, Step):
        return Need((handle.number,)), [handle]
    numbers = tuple(step.number for step in handle.steps)
    return Need(numbers, handle.single, True, handle.min_success), handle.steps


def unused(name: str, names: Collection[str], counted: dict[str, int]) -> str:
    """Return a name, with a number if there is one like it.

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


def nodes_of(specs: Sequence[StepSpec]) -> list[Node]:
    """Return the steps of a flow that has not run as nodes of a graph."""
    return [
        Node(
            spec.name,
            tuple(dict.fromkeys(number for need in spec.needs for number in need.steps)),
            spec.after,
            "step" if spec.fn is not None else "map",
        )
        for spec in specs
    ]
