"""How fast a job goes on lately, how many workers are busy, and how long the rest will take; arithmetic.

Records differ in cost, and those to come are not known. So what is left, by weight, is taken to go on at the
rate of late, not at that since the start; and a task under way is taken to need as long again as it has
taken, or what its weight lets expect if that is more: the former holds for what has no typical length. So
the time left rises when dear records come, and is never nothing while somebody works.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from batchflow.model import Key

LATELY_SECONDS = 10.0
"""How long ago is late, at least,"""
LATELY_SHARE = 0.1
"""and as a share of the time gone by."""
FADE_SECONDS = 0.1
"""What is older counts for less: how often that is reckoned, since a driver may hear of 1,000 tasks a second."""


class Meter:
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
