"""What happens to a job, as values; every listener hears each of them: progress, report, ledger.

Their annotations are no text, as those of the values that travel: each process would compile them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from batchflow.core.chunks import Chunk, Key
from batchflow.core.outcomes import Failure, Stats

STEPS = "steps"
"""What the weight of a flow is counted in."""


class JobStarted(NamedTuple):
    """A job begins to run, or a flow."""

    unit: str
    """``"bytes"`` or ``"records"``: what weights are counted in; of a flow `STEPS`."""
    total: int | None
    """Weight of the input, ``None`` if only its end will tell."""
    executor: str
    slots: int
    """Tasks that run side by side."""
    done: int = 0
    """Weight of what earlier runs did."""
    logs: str = ""
    """File or folder with messages of the engine."""
    types: str = ""
    """Types of the columns, and what they were inferred from."""
    item_unit: str = ""
    """``"files"`` or ``"records"``: what a person counts; empty if that is the weight."""
    items: int | None = None
    """Of them in the input; ``None`` if only its end will tell."""
    items_done: int = 0
    """Of them in earlier runs."""


class SlotsChanged(NamedTuple):
    """More tasks run side by side from now on, or fewer: a cluster grew, or shrank."""

    slots: int


class TaskStarted(NamedTuple):
    """A task was handed to the executor, where it may wait for a worker."""

    key: Key
    attempt: int
    weight: int
    """What it is worth, in the unit of the job."""
    isolating: str = ""
    """Records that it tries of a task that broke off, or failed as a whole: ``record 3 of a.csv``."""


class TaskEnded(NamedTuple):
    """A task ended; a chunk that failed may be tried again in halves."""

    key: Key
    attempt: int
    weight: int
    """What it was worth, in the unit of the job."""
    stats: Stats
    ok: bool
    again: bool
    """Whether another task tells, or told, of its records."""
    chunk: Chunk | None = None
    """What it was to do."""
    failure: Failure | None = None
    """Why it gave nothing back."""
    died: bool = False
    """It broke off, most often with its worker."""
    alone: bool = False
    """Nothing of the job ran beside it."""
    isolating: str = ""
    """As of `TaskStarted`."""


class ChunkSettled(NamedTuple):
    """A chunk came to its end, in input order: nothing of it will change any more."""

    key: Key
    chunk: Chunk
    stats: Stats
    failures: Sequence[Failure]
    before: bool = False
    """Whether an earlier run did it."""


class CombineEnded(NamedTuple):
    """A worker put results together."""

    part: bool
    """A part of the output was written; otherwise neighbours were made one by ``combine=``."""
    stats: Stats


class Printed(NamedTuple):
    """A task, or a step of a flow, has ended and had printed something, or logged it to its standard error."""

    place: str
    """What it was done for: the chunk, or the name of the step."""
    lines: tuple[str, ...]
    """Whole ones, without their ends."""


class Waited(NamedTuple):
    """Nothing came for a while: of use to those that show how time goes by."""


class JobEnded(NamedTuple):
    """The job is over."""

    complete: bool
    """Whether every chunk came to its end."""
    splitting: float = 0.0
    """Seconds in which the driver cut the input into chunks,"""
    combining: float = 0.0
    """and in which it took over what came of them."""


class StepStarted(NamedTuple):
    """A step of a flow begins a try."""

    step: str
    attempt: int


class StepEnded(NamedTuple):
    """A step of a flow came to its end."""

    step: str
    state: str
    """``"succeeded"``, ``"failed"``, ``"skipped"``, ``"cancelled"`` or ``"cached"``."""
    attempts: int
    why: str
    """Of one that did not succeed."""


class StepsAdded(NamedTuple):
    """A step of a flow returned more steps to run."""

    steps: int


Event: TypeAlias = (
    JobStarted
    | SlotsChanged
    | TaskStarted
    | TaskEnded
    | ChunkSettled
    | CombineEnded
    | Printed
    | Waited
    | JobEnded
    | StepStarted
    | StepEnded
    | StepsAdded
)
Listener: TypeAlias = Callable[[Event], None]
