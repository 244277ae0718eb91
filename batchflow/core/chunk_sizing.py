"""How large the next chunk should be: pure arithmetic over what was measured."""

from __future__ import annotations

from typing import NamedTuple

TARGET_SECONDS = 0.5
"""What a chunk should take: long against the cost of a task (0.1 ms here, 0.5 ms on Ray), short
against the patience of somebody who watches, and of the last worker."""
FLOOR_SECONDS = 0.002
"""What a chunk takes at least at the end of a job, where chunks shrink so that all workers finish together. It is
told from records before, and those to come may cost a thousand times as much."""
FIRST_BYTES = 4_000
FIRST_RECORDS = 4
"""Size of the first chunks, before anything is known of the function."""
GROWTH = 16
"""How much larger than the largest chunk so far a chunk may be."""
_DECAY = 0.7
WAITING_SECONDS = 2.0
"""What a chunk should take where many calls wait side by side: they run out towards its end, so ends are rare."""
_FEW = 4
"""How often a worker's calls side by side the first chunks last, where there is enough for all."""
RATE_SECONDS = 5.0
"""What a chunk takes at most where a rate keeps its calls back."""
ALONE_SHARE = 0.01
"""Of the time that is left: so long, at most, may slots stand idle to see how fast one is alone."""
ALONE_SECONDS = 1.0
"""What a chunk that runs alone should take; if there is time for less,"""
ALONE_LEAST = 0.05
"""no less than this: a shorter one tells nothing."""


FIXED_LEAST = 0.05
"""Seconds of the quickest chunk, below which the fixed cost of a chunk does not matter."""
FIXED_SHARE = 0.1
"""Share of a chunk's time that its fixed cost should take: converting 4,000 columns, or a model that starts."""
FIXED_MOST = 1.0
"""Seconds of the quickest chunk, beyond which no larger one is tried to learn its fixed cost."""
PROBE = 8
"""How many times as large a chunk is that is to tell fixed from proportional cost."""


class ChunkPacing(NamedTuple):
    """What calls that wait ask of the size of chunks."""

    calls: int = 1
    """Side by side in one worker: a chunk needs as many records at least."""
    record: float = 1.0
    """Usual weight of a record."""
    most: float = float("inf")
    """Records that all workers together may begin in the time of a chunk."""
    gap: float = 0.0
    """Seconds from one call to the next, of all workers together, where a chunk is one call."""

    @property
    def least(self) -> float:
        """Weight of a chunk that keeps a worker's calls busy; 1 where they come one after the other."""
        return self.calls * self.record if self.calls > 1 else 1


AT_ONCE = ChunkPacing()
"""Of a function that does not wait."""


class ChunkSizer:
    """Sizes chunks by the measured cost of those before.

    Parameters
    ----------
    total
        Weight of the whole input (bytes or records), ``None`` if not known.
    slots
        Tasks that run side by side.
    first
        Weight of the first chunks.
    fixed
        Weight of every chunk, where the user fixed it.
    pace
        What calls that wait ask for.
    timeout
        Seconds of one task, of which a chunk should take half at most.
    """

    def __init__(
        self,
        total: int | None,
        slots: int,
        first: int,
        fixed: int | None = None,
        pace: ChunkPacing = AT_ONCE,
        timeout: float | None = None,
    ) -> None:
        self._patience = float("inf") if timeout is None else timeout / 2
        self._remaining = total
        self._fixed = fixed
        self._pace = pace
        self._least = pace.least
        self._waits = pace.calls > 1
        self.resize(slots)
        self._first = max(first, int(_FEW * self._least)) if self._waits else first
        self._largest = self._first
        self._weight = 0.0
        self._seconds = 0.0
        self._quickest: tuple[float, int] = float("inf"), 0
        """Seconds and weight of the quickest chunk,"""
        self._larger: tuple[float, int] | None = None
        """and of the last one that was larger by far."""
        self._under_way = 0
        """Weight of the largest chunk so far, whether it came to its end or not."""

    def resize(self, slots: int) -> None:
        """Size chunks for so many tasks side by side from now on."""
        pace = self._pace
        self._slots = slots
        self._most = max(pace.record, pace.most * pace.record / slots)
        # What a call waits for its turn is measured too; smaller chunks would only have more of them wait.
        self._target = (WAITING_SECONDS if self._waits else TARGET_SECONDS) + 2 * pace.gap * slots

    def next(self) -> int:
        """Return the weight of the next chunk, at least 1."""
        if self._fixed is not None:
            return self._fixed
        return max(1, int(min(max(self._least, min(self._wanted(), self._share())), self._most)))

    def alone(self) -> int | None:
        """Return the weight of a chunk that is worth running by itself, ``None`` where there is no time for one.

        Worth it is what is small beside what is left: the time of such a chunk, and before it of what runs
        and of what waits behind that. So the best time is the first, before chunks grow.
        """
        if self._remaining is None or self._waits or not self._weight:
            return None
        rate = self._rate()
        left = self._remaining / rate / self._slots
        room = ALONE_SHARE * left - 2 * self._under_way / rate
        weight = self._fixed or int(min(room, ALONE_SECONDS) * rate)
        return weight if ALONE_LEAST <= weight / rate <= room else None

    def _wanted(self) -> float:
        if self._weight == 0:
            return self._first
        return min(max(self._rate() * self._target, self._amortized()), self._largest * GROWTH)

    def _amortized(self) -> float:
        """Return the weight of a chunk of whose time the fixed cost is a small share; 0 if there is hardly any.

        The fixed cost is told from the quickest chunk and a larger one, which has to be tried if there is none.
        """
        least, weight = self._quickest
        if least < FIXED_LEAST or self._waits or self._pace.gap:
            return 0.0
        if self._larger is None:
            return weight * PROBE if least <= min(FIXED_MOST, self._patience / PROBE) else 0.0
        fixed, slope = self._line(*self._larger)
        if fixed < FIXED_LEAST:
            return 0.0
        return min(fixed / FIXED_SHARE, self._patience - fixed) / slope

    def _line(self, seconds: float, larger: int) -> tuple[float, float]:
        """Return the fixed seconds of a chunk, and those for what is one of weight."""
        least, weight = self._quickest
        slope = max(1e-9, (seconds - least) / max(1, larger - weight))
        return least - slope * weight, slope

    def _share(self) -> float:
        """Return half of what each slot has left, but no less than a chunk is worth making for."""
        if self._remaining is None:
            return float("inf")
        floor = self._rate() * FLOOR_SECONDS if self._weight else 1
        if self._larger is not None and self._amortized():
            fixed, slope = self._line(*self._larger)
            floor = max(floor, min(fixed / slope / 2, self._remaining))
        shares = 1 if self._waits and self._slots == 1 else 2 * self._slots  # one worker finishes with itself
        return max(floor, self._remaining / shares)

    def _rate(self) -> float:
        return self._weight / max(self._seconds, 1e-6)

    def drawn(self, weight: int) -> None:
        """Note that a chunk of this weight was cut off the input."""
        self._under_way = max(self._under_way, weight)
        if self._remaining is not None:
            self._remaining = max(0, self._remaining - weight)

    def learn(self, weight: int, seconds: float) -> None:
        """Note how long a chunk took; later chunks count more than earlier ones."""
        self._largest = max(self._largest, weight)
        self._quickest = min(self._quickest, (seconds, weight))
        if weight >= self._quickest[1] * PROBE / 2:
            self._larger = seconds, weight
        self._weight = self._weight * _DECAY + weight
        self._seconds = self._seconds * _DECAY + seconds
