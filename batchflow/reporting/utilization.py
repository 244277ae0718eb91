"""Where the workers' time went: each second of each slot is counted to one thing."""

from __future__ import annotations

import time

from batchflow.core.outcomes import Stats

PHASES = ("read", "call", "convert", "write")
"""What a task does with its records."""
LOSSES = ("start", *PHASES, "other", "wait")
"""All that a slot's time goes into, in the order in which it comes."""


class SlotUtilization:
    """Adds up what became of the time of a job's slots.

    ``start``: until a worker began its first task, so with ``setup=`` and imports. ``other``: inside of tasks,
    but none of their phases; tasks that broke off are whole in it. ``wait``: all the rest, so between tasks and
    behind the last one; on Ray also tasks whose worker died, as nobody knows when they began.

    Attributes
    ----------
    busy : dict
        Seconds of tasks by worker.
    cpu : float
        Seconds that tasks computed.
    """

    def __init__(self) -> None:
        self._began = self._counted = time.perf_counter()
        self._epoch = time.time()
        self._slots = 0
        self._most = 0
        self._starts: dict[str, float] = {}
        self._spent = dict.fromkeys((*PHASES, "other"), 0.0)
        self._slot_seconds = 0.0
        self.busy: dict[str, float] = {}
        self.cpu: float = 0.0

    @property
    def seconds(self) -> float:
        """How long the job has been under way."""
        return time.perf_counter() - self._began

    def resize(self, slots: int) -> None:
        """Count so many slots from now on; the first number of them holds from the beginning."""
        now = time.perf_counter()
        self._slot_seconds += (self._slots or slots) * (now - self._counted)
        self._counted, self._slots = now, slots
        self._most = max(self._most, slots)

    def task(self, stats: Stats) -> None:
        """Count one task."""
        if not stats.worker:
            return
        self._begin(stats)
        phases = 0.0
        for phase in PHASES:
            spent = getattr(stats, phase)
            self._spent[phase] += spent
            phases += spent
        self._spent["other"] += max(0.0, stats.seconds - phases)
        self.cpu += stats.cpu

    def combined(self, stats: Stats, *, part: bool) -> None:
        """Count what put results together: a call of the user's function, or the writing of a part."""
        self._begin(stats)
        self._spent["write" if part else "call"] += stats.seconds

    def _begin(self, stats: Stats) -> None:
        """Note when a worker began its first task, by its own clock where that can be right."""
        if stats.worker not in self.busy:
            latest = max(0.0, self.seconds - stats.seconds)
            told = stats.started - self._epoch  # of another machine it may be wrong by anything
            self._starts[stats.worker] = told if 0 <= told <= latest else latest
        self.busy[stats.worker] = self.busy.get(stats.worker, 0.0) + stats.seconds

    def losses(self) -> dict[str, float]:
        """Return seconds by what they went into; they add up to those of all slots, but for noise of clocks."""
        total = self._slot_seconds + self._slots * (time.perf_counter() - self._counted)
        start = sum(sorted(self._starts.values())[: self._most])
        spent = sum(self._spent.values())
        start = min(start, max(0.0, total - spent))
        return {"start": start, **self._spent, "wait": max(0.0, total - spent - start)}
