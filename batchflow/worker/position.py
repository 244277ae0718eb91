"""Position of a task in its chunk, in memory shared with the driver: it survives a killed worker.

Records are marked in stretches of `STRETCH`, which costs a few nanoseconds each. If a task has limits or is a
retry, the start of each record is marked as well, at 0.15 us.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from operator import itemgetter
from typing import Any

from batchflow.core.outcomes import Position

STRETCH = 128
"""Records marked together."""
NEARLY = 0.999
"""Share of a time limit that counts as reached, because clocks may run slightly short."""
_HEAD = 5
CELLS = _HEAD + STRETCH
"""Number of 8-byte integers in a position."""
_NEXT = itemgetter(0)


_part: list[list[Any]] = [[]]
"""Stretch of records that is being iterated over."""
os.register_at_fork(after_in_child=lambda: _part[0].clear())  # a forked child must not process them


class PositionCells:
    """Position of one task, stored as integers in memory.

    Parameters
    ----------
    cells
        Memory for `CELLS` integers, by default of this process.
    """

    def __init__(self, cells: memoryview | None = None) -> None:
        self._cells = memoryview(bytearray(8 * CELLS)).cast("Q") if cells is None else cells
        self._starts = self._cells[_HEAD:]

    def clear(self) -> None:
        """Mark that neither the function nor ``setup=`` is running."""
        self._cells[2] = self._cells[4] = 0

    @property
    def in_setup(self) -> bool:
        """Whether ``setup=`` is running."""
        return bool(self._cells[4])

    @in_setup.setter
    def in_setup(self, in_setup: bool) -> None:
        self._cells[4] = in_setup

    def note(
        self, span: int, first: int, records: int = 1, *, timed: bool = True, since: float | None = None
    ) -> None:
        """Mark that the function is called for some records of a span, one after the other.

        Parameters
        ----------
        since
            `time.monotonic` at the start of the first call; ``None``: now.
        """
        cells = self._cells
        cells[2] = 0  # a concurrent reader sees no position while it changes
        cells[0], cells[1], cells[3] = span, first, timed
        self._starts[0] = time.monotonic_ns() if since is None else int(since * 1e9)
        cells[2] = records

    def follow(self, rows: Sequence[Any], span: int, numbers: Sequence[int], *, timed: bool) -> Iterator[Any]:
        """Iterate over records while marking the current one, without a Python frame per record."""
        return chain.from_iterable(self._stretches(rows, span, numbers, timed=timed))

    def _stretches(
        self, rows: Sequence[Any], span: int, numbers: Sequence[int], *, timed: bool
    ) -> Iterator[Iterable[Any]]:
        pid = os.getpid()
        for first in range(0, len(rows), STRETCH):
            if os.getpid() != pid:
                os._exit(0)  # a fork that the function started and did not end
            part = list(rows[first : first + STRETCH])
            _part[0] = part
            begin, end = numbers[first], numbers[first + len(part) - 1] + 1
            if timed and end - begin > len(part):  # blank lines between records are numbered too
                for at, record in enumerate(part, first):
                    self.note(span, numbers[at])
                    yield (record,)
                continue
            self.note(span, begin, end - begin, timed=timed)
            if timed:
                starts = map(self._starts.__setitem__, count(), iter(time.monotonic_ns, None))
                yield map(_NEXT, zip(part, starts, strict=False))
            else:
                yield part

    def read(self) -> Position | None:
        """Return the position; ``None`` if the function is not running for any record."""
        span, first, records, timed = self._cells[:4]
        if not records:
            return None
        starts = self._starts[:records].tolist() if timed else [self._starts[0]]
        last = max(range(len(starts)), key=starts.__getitem__)
        seconds = (time.monotonic_ns() - starts[last]) / 1e9
        return Position(span, first + last, 1, seconds) if timed else Position(span, first, records, seconds)

    def seconds_left(self, limit: float) -> float:
        """Return the seconds left for the current record, if most of the time limit went to this record.

        If records are called together, nothing is left.
        """
        position = self.read()
        if position is None or position.records > 1 or position.seconds < limit / 2:
            return 0.0
        return max(0.0, limit - position.seconds)
