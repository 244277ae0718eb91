"""What happens to a job, as values; every listener hears each of them: progress, report, ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from batchflow.model import Chunk, Failure, Key, Stats


class JobStarted(NamedTuple):
    """A job begins to run."""

    unit: str
    """``"bytes"`` or ``"records"``: what weights are counted in."""
    total: int | None
    """Weight of the input, ``None`` if only its end will tell."""
    executor: str
    slots: int
    """Tasks that run side by side."""
    done: int = 0
    """Weight of what earlier runs did."""
    logs: str = ""
    """File or folder with messages of the engine, and with what tasks print."""


class SlotsChanged(NamedTuple):
    """More tasks run side by side from now on, or fewer: a cluster grew, or shrank."""

    slots: int


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


class ChunkSettled(NamedTuple):
    """A chunk came to its end, in input order: nothing of it will change any more."""

    key: Key
    chunk: Chunk
    stats: Stats
    failures: tuple[Failure, ...]
    before: bool = False
    """Whether an earlier run did it."""


class CombineEnded(NamedTuple):
    """A worker put results together."""

    part: bool
    """A part of the output was written; otherwise neighbours were made one by ``combine=``."""
    stats: Stats


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


Event: TypeAlias = (
    JobStarted | SlotsChanged | TaskEnded | ChunkSettled | CombineEnded | JobEnded | StepStarted | StepEnded
)
Listener: TypeAlias = Callable[[Event], None]
