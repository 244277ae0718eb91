"""Progress counts and remaining time of a job or a flow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

from batchflow.core.chunks import Key
from batchflow.core.resources import format_bytes
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

FEW = 10
"""Steps of a flow that must have ended before the time left is told: they are less alike than records."""


class ProgressLine(NamedTuple):
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


class JobProgress:
    """A listener that counts one job."""

    def __init__(self) -> None:
        self.meter: EtaEstimator = EtaEstimator(None, 0, 0)
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
            self.meter = EtaEstimator(event.total, event.done, event.slots)
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
    def line(self) -> ProgressLine:
        """How far it is now."""
        meter = self.meter
        done = meter.done if meter.total is None else min(meter.done, meter.total)
        amounts = "/".join(self._amount(one) for one in (done, meter.total) if one is not None)
        text = amounts if self._unit == "bytes" else f"{amounts} {self._unit}"
        if self._item_unit:
            counts = "/".join(f"{one:,}" for one in (self._items, self._items_total) if one is not None)
            text = f"{counts} {self._item_unit}" + (f", {text}" if self._items_total is None else "")
        return ProgressLine(f"{text} [{', '.join(self._told())}]", done, meter.total, self.failed)

    def _rate_text(self, rate: float) -> str:
        """Return a rate by weight; in files or records, by the mean weight of those that are done."""
        if self._item_unit and self.meter.done:
            return f"{_number(rate * self._items / self.meter.done)} {self._item_unit}/s"
        return f"{self._amount(rate)}/s"

    def rows(self, most: int, after: float) -> list[tuple[str, ProgressLine]]:
        """Return nothing: a job has no steps."""
        return []

    def job(self, name: str) -> JobProgress:
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
        self.job: JobProgress | None = None
        """Of one that is a whole job."""

    @property
    def failed(self) -> int:
        """Records of it that failed."""
        return 0 if self.job is None else self.job.failed


class FlowProgress:
    """A listener that counts the steps of a flow, those returned by others included."""

    def __init__(self) -> None:
        self.meter: EtaEstimator = EtaEstimator(None, 0, 0)
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
            self.meter = EtaEstimator(event.total, event.done, event.slots)
        elif isinstance(event, JobEnded):
            self._over = True

    def _ended(self, event: StepEnded) -> None:
        step = self.under_way.pop(event.step, None)
        seconds = 0.0 if step is None else time.monotonic() - step.began
        self._failed += (event.state == "failed") + (0 if step is None else step.failed)
        self.meter.end((self.meter.done,), 1, seconds, ok=step is not None)

    def job(self, name: str) -> JobProgress:
        """Return the count of a step that is a whole job."""
        job = JobProgress()
        self.under_way.setdefault(name, _Step()).job = job
        return job

    @property
    def line(self) -> ProgressLine:
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
        return ProgressLine(f"{meter.done:,}/{total:,} steps [{', '.join(told)}]", meter.done, total, failed)

    @property
    def _busy(self) -> int:
        return sum(1 if step.job is None else step.job.meter.busy for step in self.under_way.values())

    def rows(self, most: int, after: float) -> list[tuple[str, ProgressLine]]:
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
        return rows if shown is old else [*rows, (f"and {len(old) - len(shown):,} more", ProgressLine(""))]


def _line_of(step: _Step) -> ProgressLine:
    if step.job is not None and step.job.meter.slots:
        return step.job.line
    return ProgressLine(f"[{interval(time.monotonic() - step.began)}]")


def interval(seconds: float | None) -> str:
    """Return seconds as a clock shows them."""
    if seconds is None:
        return "?"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"


LATELY_SECONDS = 10.0
"""How long ago is late, at least,"""
LATELY_SHARE = 0.1
"""and as a share of the time gone by."""
FADE_SECONDS = 0.1
"""What is older counts for less: how often that is reckoned, since a driver may hear of 1,000 tasks a second."""


class EtaEstimator:
    """Hears of each task as it is handed over and as it ends.

    Parameters
    ----------
    total
        Weight of everything; ``None``: not known.
    done
        Weight of what was done before.
    slots
        Tasks that run side by side.
    clock
        Tells the time in seconds; by default `time.monotonic`.
    """

    def __init__(self, total: int | None, done: int, slots: int, clock: Callable[[], float] | None = None) -> None:
        self.total = total
        self.done: int = done
        self.slots: int = slots
        self._clock = clock or time.monotonic
        self.began: float = self._clock()
        self._last = self._heard = self.began
        self._running: dict[Key, tuple[float, int]] = {}
        """When each began, most likely, and its weight,"""
        self._waiting: dict[Key, int] = {}
        """and the weight of those that wait for a worker: the first handed over is the first to begin."""
        self._weight = self._seconds = self._worked = 0.0
        """Done lately: weight, in how many seconds, and how many of workers that took."""

    @property
    def busy(self) -> int:
        """Workers that have a task."""
        return len(self._running)

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock() - self.began

    def begin(self, key: Key, weight: int) -> None:
        """Hear that a task was handed over."""
        if len(self._running) < self.slots:
            self._running[key] = self._clock(), weight
        else:
            self._waiting[key] = weight

    def _promote(self) -> None:
        while self._waiting and len(self._running) < self.slots:
            key = next(iter(self._waiting))
            self._running[key] = self._clock(), self._waiting.pop(key)

    def end(self, key: Key, weight: int, seconds: float, *, ok: bool = True, again: bool = False) -> None:
        """Hear that a task ended, after so many seconds of its worker.

        Parameters
        ----------
        ok
            Whether its time tells of what is to come.
        again
            Whether its records are still to be done.
        """
        if self._running.pop(key, None) is None:
            self._waiting.pop(key, None)
        if self._waiting:
            self._promote()
        if not again:
            self.done += weight
        if ok:
            self._learn(weight, seconds)

    def _learn(self, weight: int, seconds: float) -> None:
        now = self._heard = self._clock()
        gone = now - self._last
        if gone > FADE_SECONDS:
            self._last = now
            self._fade(gone, now)
        self._weight += weight
        self._worked += seconds

    def _fade(self, gone: float, now: float) -> None:
        fade = math.exp(-gone / max(LATELY_SECONDS, LATELY_SHARE * (now - self.began)))
        self._weight *= fade
        self._worked *= fade
        self._seconds = self._seconds * fade + gone

    def resize(self, slots: int) -> None:
        """Hear that more tasks run side by side from now on, or fewer."""
        self.slots = slots
        self._promote()

    @property
    def rate(self) -> float | None:
        """Weight a second, lately; ``None``: nothing has been done."""
        seconds = self._seconds + self._heard - self._last
        return self._weight / seconds if self._weight and seconds else None

    @property
    def left(self) -> float | None:
        """Seconds to the end; ``None``: nobody can tell."""
        rate = self.rate
        if self.total is None or rate is None:
            return None
        now, cost = self._clock(), self._worked / self._weight
        ages = [(now - began, cost * weight) for began, weight in self._running.values()]
        due = [max(expected - age, age) for age, expected in ages]  # as long again, or what is left of the usual
        begun = sum(weight for _, weight in self._running.values())
        rest = max(0, self.total - self.done - begun)
        return max([*due, sum(due) / max(1, self.slots) + rest / rate])
