"""Sums over time in a fixed number of bins, which get twice as wide whenever time runs beyond them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

BINS = 240
"""At most; at least half as many are in use once time has run for a while."""
_FIRST_WIDTH = 0.001


class Bins:
    """Amounts by time: memory and cost do not grow with how many are added, or over how long.

    Parameters
    ----------
    fields
        Amounts that are added at a time.

    Attributes
    ----------
    width : float
        Of a bin, in seconds.
    """

    def __init__(self, fields: int) -> None:
        self._fields = fields
        self.width: float = _FIRST_WIDTH
        self._sums: dict[int, array[float]] = {}

    @property
    def tracks(self) -> list[int]:
        """What was added to, in ascending order."""
        return sorted(self._sums)

    def add(self, track: int, start: float, seconds: float, amounts: Sequence[float]) -> None:
        """Spread amounts evenly over the time from a start on."""
        end = start + seconds
        first, last = int(start / self.width), int(end / self.width)
        while last >= BINS:
            self._widen()
            first, last = first // 2, last // 2
        sums = self._sums.get(track)
        if sums is None:
            sums = self._sums[track] = array("d", bytes(8 * BINS * self._fields))
        if first == last:
            at = first * self._fields
            for amount in amounts:
                sums[at] += amount
                at += 1
            return
        for at in range(first, last + 1):
            share = (min(end, (at + 1) * self.width) - max(start, at * self.width)) / seconds
            for field, amount in enumerate(amounts, at * self._fields):
                sums[field] += share * amount

    def _widen(self) -> None:
        """Make bins twice as wide, two into one."""
        self.width *= 2
        wide = 2 * self._fields
        for track, old in self._sums.items():
            new = array("d", bytes(8 * BINS * self._fields))
            for at in range(BINS // 2):
                pair = old[at * wide : (at + 1) * wide]
                for field in range(self._fields):
                    new[at * self._fields + field] = pair[field] + pair[self._fields + field]
            self._sums[track] = new

    def rows(self, track: int, join: int = 1) -> Iterator[tuple[int, Sequence[float]]]:
        """Yield the number and the sums of each bin of a track that is not empty.

        Parameters
        ----------
        join
            Bins in a row that are taken as one.
        """
        sums = self._sums.get(track, ())
        wide = join * self._fields
        for at in range(-(-len(sums) // wide)):
            row = sums[at * wide : (at + 1) * wide]
            if any(row):
                yield at, [sum(row[field :: self._fields]) for field in range(self._fields)]
