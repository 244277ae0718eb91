"""How far a job is, or a flow, told from its events: what a line of progress shows."""

from __future__ import annotations

import time
from typing import NamedTuple

from batchflow.events import (
    ChunkSettled,
    Event,
    JobEnded,
    JobStarted,
    SlotsChanged,
    StepEnded,
    StepsAdded,
    StepStarted,
    TaskEnded,
    TaskStarted,
)
from batchflow.meter import Meter
from batchflow.model import Key
from batchflow.resources import format_bytes

FEW = 10
"""Steps of a flow that must have ended before the time left is told: they are less alike than records."""


class Line(NamedTuple):
    """A line of progress."""

    text: str
    done: int = 0
    total: int | None = None
    """``None``: there is no share to show."""
    failed: int = 0
    """Records or steps that failed."""

    @property
    def share(self) -> str:
        """Percent that are done, rounded down: all is not done before all is done."""
        return "" if not self.total else f"{min(100, 100 * self.done // self.total):3d}%"


class JobCount:
    """A listener that counts one job."""

    def __init__(self) -> None:
        self.meter: Meter = Meter(None, 0, 0)
        self._unit = self._item_unit = ""
        self._items: int = 0
        """Files or records that are done, where a person counts these,"""
        self._items_total: int | None = None
        """and all of them, if that is known."""
        self.failed: int = 0
        self._isolating: dict[Key, str] = {}
        """Records of tasks under way that look for the one that broke another task off."""
        self._over = False

    def __call__(self, event: Event) -> None:
        """Hear one event."""
        if isinstance(event, TaskEnded):
            self._end_task(event)
        elif isinstance(event, TaskStarted):
            self.meter.begin(event.key, event.weight)
            if event.isolating:
                self._isolating[event.key] = event.isolating
        elif isinstance(event, ChunkSettled):
            self.failed += event.stats.counts[2] or len(event.failures)
        elif isinstance(event, SlotsChanged):
            self.meter.resize(event.slots)
        elif isinstance(event, JobStarted):
            self.meter = Meter(event.total, event.done, event.slots)
            self._unit = event.unit
            self._item_unit, self._items_total, self._items = event.item_unit, event.items, event.items_done
        elif isinstance(event, JobEnded):
            self._end(complete=event.complete)

    def _end(self, *, complete: bool) -> None:
        self._over = True
        if complete and self.meter.total is not None:
            self.meter.done = self.meter.total  # weights are estimates

    def _end_task(self, event: TaskEnded) -> None:
        self.meter.end(event.key, event.weight, event.stats.seconds, ok=event.ok, again=event.again)
        if self._item_unit and not event.again:
            self._items += self._items_of(event)
        self._isolating.pop(event.key, None)

    def _items_of(self, event: TaskEnded) -> int:
        """Return how many files or records a task did."""
        if self._item_unit == "files" and event.chunk is not None:
            return len(event.chunk.spans)
        return event.stats.counts[0]

    @property
    def line(self) -> Line:
        """How far it is now."""
        meter = self.meter
        done = meter.done if meter.total is None else min(meter.done, meter.total)
        amounts = "/".join(self._amount(one) for one in (done, meter.total) if one is not None)
        text = amounts if self._unit == "bytes" else f"{amounts} {self._unit}"
        if self._item_unit:
            counts = "/".join(f"{one:,}" for one in (self._items, self._items_total) if one is not None)
            text = f"{counts} {self._item_unit}" + (f", {text}" if self._items_total is None else "")
        return Line(f"{text} [{', '.join(self._told())}]", done, meter.total, self.failed)

    def _rate_text(self, rate: float) -> str:
        """Return a rate by weight; in files or records, by the mean weight of those that are done."""
        if self._item_unit and self.meter.done:
            return f"{_number(rate * self._items / self.meter.done)} {self._item_unit}/s"
        return f"{self._amount(rate)}/s"

    def rows(self, most: int, after: float) -> list[tuple[str, Line]]:
        """Return nothing: a job has no steps."""
        return []

    def job(self, name: str) -> JobCount:
        """Return the count of the job itself."""
        return self

    def _told(self) -> list[str]:
        meter = self.meter
        rate = meter.rate
        told = [interval(meter.elapsed)]
        if not self._over and meter.total is not None:
            told[0] += f"<{interval(meter.left)}"
        if rate is not None:
            told.append(self._rate_text(rate))
        if self.failed:
            told.append(f"{self.failed:,} failed")
        if not self._over:
            told.append(f"{meter.busy}/{meter.slots} busy")
        if self._isolating:
            told.append(f"isolating {next(iter(self._isolating.values()))}")
        return told

    def _amount(self, number: float) -> str:
        if self._unit == "bytes":
            return format_bytes(int(number))
        return _number(number)


def _number(number: float) -> str:
    return f"{number:,.0f}" if number >= FEW or number == int(number) else f"{number:.1f}"


class _Step:
    """A step of a flow under way."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.job: JobCount | None = None
        """Of one that is a whole job."""

    @property
    def failed(self) -> int:
        """Records of it that failed."""
        return 0 if self.job is None else self.job.failed


class FlowCount:
    """A listener that counts the steps of a flow, those returned by others included."""

    def __init__(self) -> None:
        self.meter: Meter = Meter(None, 0, 0)
        self.under_way: dict[str, _Step] = {}
        self._failed = 0
        self._over = False

    def __call__(self, event: Event) -> None:
        """Hear one event."""
        if isinstance(event, StepStarted):
            self.under_way.setdefault(event.step, _Step())
        elif isinstance(event, StepEnded):
            self._ended(event)
        elif isinstance(event, StepsAdded) and self.meter.total is not None:
            self.meter.total += event.steps
        elif isinstance(event, JobStarted):
            self.meter = Meter(event.total, event.done, event.slots)
        elif isinstance(event, JobEnded):
            self._over = True

    def _ended(self, event: StepEnded) -> None:
        step = self.under_way.pop(event.step, None)
        seconds = 0.0 if step is None else time.monotonic() - step.began
        self._failed += (event.state == "failed") + (0 if step is None else step.failed)
        self.meter.end((self.meter.done,), 1, seconds, ok=step is not None)

    def job(self, name: str) -> JobCount:
        """Return the count of a step that is a whole job."""
        job = JobCount()
        self.under_way.setdefault(name, _Step()).job = job
        return job

    @property
    def line(self) -> Line:
        """How far it is now."""
        meter, left = self.meter, ""
        if not self._over and meter.done >= FEW:
            left = f"<{interval(meter.left)}"
        told = [f"{interval(meter.elapsed)}{left}"]
        failed = self._failed + sum(step.failed for step in self.under_way.values())
        if failed:
            told.append(f"{failed:,} failed")
        if not self._over:
            told.append(f"{min(self._busy, meter.slots)}/{meter.slots} busy")
        total = meter.total or 0
        return Line(f"{meter.done:,}/{total:,} steps [{', '.join(told)}]", meter.done, total, failed)

    @property
    def _busy(self) -> int:
        return sum(1 if step.job is None else step.job.meter.busy for step in self.under_way.values())

    def rows(self, most: int, after: float) -> list[tuple[str, Line]]:
        """Return the steps that have been under way for some time, each with its name.

        Parameters
        ----------
        most
            Of them; the last one then tells how many more there are.
        after
            Seconds.
        """
        since = time.monotonic() - after
        old = [(name, step) for name, step in self.under_way.items() if step.began <= since]
        shown = old if len(old) <= most else old[: most - 1]
        rows = [(name, _line_of(step)) for name, step in shown]
        return rows if shown is old else [*rows, (f"and {len(old) - len(shown):,} more", Line(""))]


def _line_of(step: _Step) -> Line:
    if step.job is not None and step.job.meter.slots:
        return step.job.line
    return Line(f"[{interval(time.monotonic() - step.began)}]")


def interval(seconds: float | None) -> str:
    """Return seconds as a clock shows them."""
    if seconds is None:
        return "?"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"
