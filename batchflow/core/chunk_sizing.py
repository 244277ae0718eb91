"""Chunk sizes from measured costs: pure arithmetic."""

from __future__ import annotations

from typing import NamedTuple

TARGET_SECONDS = 0.5
"""Target duration of a chunk: long compared with the overhead of a task (0.1 ms here, 0.5 ms on Ray), short enough
for live progress and for the last worker to finish.
"""
FLOOR_SECONDS = 0.002
"""Minimum duration of a chunk at the end of a job, where chunks shrink so that all workers finish together. It is
estimated from earlier records, and later ones may cost a thousand times as much.
"""
FIRST_BYTES = 4_000
FIRST_RECORDS = 4
"""Size of the first chunks, before the cost of the function is known."""
GROWTH = 16
"""Maximum size of a chunk, as a multiple of the largest chunk so far."""
_DECAY = 0.7
WAITING_SECONDS = 2.0
"""Target duration of a chunk with concurrent calls: calls run out towards its end, so ends should be rare."""
_FEW = 4
"""Minimum size of the first chunks, as a multiple of a worker's concurrent calls, if the input is large enough."""
RATE_SECONDS = 5.0
"""Maximum duration of a chunk whose calls are rate-limited."""
ALONE_SHARE = 0.01
"""Share of the remaining time that slots may idle while a chunk runs alone to measure its speed."""
ALONE_SECONDS = 1.0
"""Target duration of a chunk that runs alone."""
ALONE_LEAST = 0.05
"""Minimum duration of a chunk that runs alone; a shorter one is no reliable measurement."""


FIXED_LEAST = 0.05
"""Seconds of the quickest chunk below which the fixed cost of a chunk does not matter."""
FIXED_SHARE = 0.1
"""Target share of a chunk's time for its fixed cost, such as converting 4,000 columns or loading a model."""
FIXED_MOST = 1.0
"""Seconds of the quickest chunk above which no larger one is tried to measure the fixed cost."""
PROBE = 8
"""Size of the chunk that separates fixed from proportional cost, as a multiple of the quickest one."""


class ChunkPacing(NamedTuple):
    """Constraints of concurrent and rate-limited calls on chunk sizes."""

    calls: int = 1
    """Concurrent calls in one worker: the minimum number of records in a chunk."""
    record: float = 1.0
    """Typical weight of a record."""
    most: float = float("inf")
    """Records that all workers together may start in the time of one chunk."""
    gap: float = 0.0
    """Seconds between calls of all workers together, if each chunk is one call."""

    @property
    def least(self) -> float:
        """Weight of a chunk that keeps a worker's calls busy; 1 if calls are sequential."""
        return self.calls * self.record if self.calls > 1 else 1


AT_ONCE = ChunkPacing()
"""Pacing of a function whose calls are neither concurrent nor rate-limited."""


class ChunkSizer:
    """Sizes chunks by the measured cost of earlier ones.

    Parameters
    ----------
    total
        Weight of the whole input (bytes or records); ``None`` if unknown.
    slots
        Number of tasks that run in parallel.
    first
        Weight of the first chunks.
    fixed
        Weight of every chunk, if the user fixed it.
    pace
        Constraints of concurrent and rate-limited calls.
    timeout
        Time limit of one task in seconds; a chunk should take at most half of it.
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
        """Seconds and weight of the quickest chunk."""
        self._larger: tuple[float, int] | None = None
        """Seconds and weight of the last chunk that was much larger than the quickest one."""
        self._under_way = 0
        """Weight of the largest chunk so far, finished or not."""

    def resize(self, slots: int) -> None:
        """Size chunks for this number of parallel tasks from now on."""
        pace = self._pace
        self._slots = slots
        self._most = max(pace.record, pace.most * pace.record / slots)
        # Measured times include waiting for the rate limit; smaller chunks would only make more calls wait.
        self._target = (WAITING_SECONDS if self._waits else TARGET_SECONDS) + 2 * pace.gap * slots

    def next(self) -> int:
        """Return the weight of the next chunk, at least 1."""
        if self._fixed is not None:
            return self._fixed
        return max(1, int(min(max(self._least, min(self._wanted(), self._share())), self._most)))

    def alone(self) -> int | None:
        """Return the weight of a chunk that is worth running alone; ``None`` if there is not enough time.

        The chunk is worth it if the idle time is small compared with the remaining time: its own, and the time to
        drain running and queued work before it. The best moment is therefore early, before chunks grow.
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
        """Return the weight of a chunk that makes the fixed cost a small share; 0 if the fixed cost is negligible.

        The fixed cost is estimated from the quickest chunk and a larger one, which is tried if there is none yet.
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
        """Return the fixed seconds of a chunk and the seconds per unit of weight."""
        least, weight = self._quickest
        slope = max(1e-9, (seconds - least) / max(1, larger - weight))
        return least - slope * weight, slope

    def _share(self) -> float:
        """Return half of the remaining work per slot, but at least the minimum worthwhile weight."""
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
        """Record that a chunk of this weight was taken from the input."""
        self._under_way = max(self._under_way, weight)
        if self._remaining is not None:
            self._remaining = max(0, self._remaining - weight)

    def learn(self, weight: int, seconds: float) -> None:
        """Record the duration of a chunk; later chunks count more than earlier ones."""
        self._largest = max(self._largest, weight)
        self._quickest = min(self._quickest, (seconds, weight))
        if weight >= self._quickest[1] * PROBE / 2:
            self._larger = seconds, weight
        self._weight = self._weight * _DECAY + weight
        self._seconds = self._seconds * _DECAY + seconds
