"""What happens to a job, as values; every listener hears each of them: progress, report, ledger.

Their annotations are no text, as those of the values that travel: each process would compile them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from batchflow.core.chunks import Chunk, Key
from batchflow.core.outcomes import Failure, Stats

STEPS = "steps"
"""Unit of weight of a flow."""


class JobStarted(NamedTuple):
    """Start of a job or of a flow."""

    unit: str
    """Unit of weights, ``"bytes"`` or ``"records"``; of a flow `STEPS`."""
    total: int | None
    """Weight of the input, ``None`` if unknown before its end."""
    executor: str
    slots: int
    """Number of tasks that run concurrently."""
    done: int = 0
    """Weight of the work done by earlier runs."""
    logs: str = ""
    """Log file or folder of the engine."""
    types: str = ""
    """Types of the columns, and their origin."""
    item_unit: str = ""
    """Unit for people, ``"files"`` or ``"records"``; empty if it is the unit of weights."""
    items: int | None = None
    """Number of items in the input; ``None`` if unknown before its end."""
    items_done: int = 0
    """Number of items done by earlier runs."""


class SlotsChanged(NamedTuple):
    """Change in the number of concurrent tasks, because a cluster grew or shrank."""

    slots: int


class TaskStarted(NamedTuple):
    """Submission of a task to the executor, where it may wait for a worker."""

    key: Key
    attempt: int
    weight: int
    """Weight of the task, in the unit of the job."""
    isolating: str = ""
    """Records that it isolates from a lost or failed task: ``record 3 of a.csv``."""


class TaskEnded(NamedTuple):
    """End of a task; a failed chunk may be retried in halves."""

    key: Key
    attempt: int
    weight: int
    """Weight of the task, in the unit of the job."""
    stats: Stats
    ok: bool
    again: bool
    """Whether another task accounts for its records."""
    chunk: Chunk | None = None
    """Chunk of the task."""
    failure: Failure | None = None
    """Reason that it has no result."""
    died: bool = False
    """Whether it broke off, most often with its worker."""
    alone: bool = False
    """Whether no other task of the job ran concurrently."""
    isolating: str = ""
    """Same as in `TaskStarted`."""


class ChunkSettled(NamedTuple):
    """Final state of a chunk, in input order."""

    key: Key
    chunk: Chunk
    stats: Stats
    failures: Sequence[Failure]
    before: bool = False
    """Whether an earlier run did it."""


class CombineEnded(NamedTuple):
    """End of a combine task on a worker."""

    part: bool
    """Whether it wrote a part of the output; otherwise it merged neighbours by ``combine=``."""
    stats: Stats


class Printed(NamedTuple):
    """Lines that a task or a flow step printed, or logged to standard error."""

    place: str
    """Origin of the lines: the chunk, or the name of the step."""
    lines: tuple[str, ...]
    """Complete lines, without line ends."""


class Waited(NamedTuple):
    """Timeout without an outcome, for listeners that display elapsed time."""


class JobEnded(NamedTuple):
    """End of a job."""

    complete: bool
    """Whether every chunk was processed."""
    splitting: float = 0.0
    """Seconds that the driver spent on splitting the input."""
    combining: float = 0.0
    """Seconds that the driver spent on combining results."""


class StepStarted(NamedTuple):
    """Start of an attempt at a step of a flow."""

    step: str
    attempt: int


class StepEnded(NamedTuple):
    """End of a step of a flow."""

    step: str
    state: str
    """``"succeeded"``, ``"failed"``, ``"skipped"``, ``"cancelled"`` or ``"cached"``."""
    attempts: int
    why: str
    """Reason that it did not succeed."""


class StepsAdded(NamedTuple):
    """Addition of steps returned by a step of a flow."""

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
