"""Which record a task is at, in memory that the driver may share: it outlives a worker that is killed.

Records are noted by stretches of `STRETCH`, which costs some nanoseconds each. Where a task has limits, or is
tried again, the start of each record is noted as well, at 0.15 us.
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
"""Records that are noted together."""
NEARLY = 0.999
"""Of a limit that a clock may be short of."""
_HEAD = 5
CELLS = _HEAD + STRETCH
"""Numbers of eight bytes that a position takes."""
_NEXT = itemgetter(0)


_part: list[list[Any]] = [[]]
"""Records that are being taken one after the other."""
os.register_at_fork(after_in_child=lambda: _part[0].clear())  # a fork by the function takes none of them


class PositionCells:
    """The position of one task, as numbers in memory.

    Parameters
    ----------
    cells
        `CELLS` numbers, by default in memory of this process.
    """

    def __init__(self, cells: memoryview | None = None) -> None:
        self._cells = memoryview(bytearray(8 * CELLS)).cast("Q") if cells is None else cells
        self._starts = self._cells[_HEAD:]

    def clear(self) -> None:
        """Note that neither the function nor ``setup=`` is called."""
        self._cells[2] = self._cells[4] = 0

    @property
    def in_setup(self) -> bool:
        """Whether ``setup=`` is being called."""
        return bool(self._cells[4])

    @in_setup.setter
    def in_setup(self, in_setup: bool) -> None:
        self._cells[4] = in_setup

    def note(
        self, span: int, first: int, records: int = 1, *, timed: bool = True, since: float | None = None
    ) -> None:
        """Note that the function is called for some records of a span, one after the other.

        Parameters
        ----------
        since
            `time.monotonic` when the first call began; ``None``: now.
        """
        cells = self._cells
        cells[2] = 0  # whoever reads between these lines finds nothing
        cells[0], cells[1], cells[3] = span, first, timed
        self._starts[0] = time.monotonic_ns() if since is None else int(since * 1e9)
        cells[2] = records

    def follow(self, rows: Sequence[Any], span: int, numbers: Sequence[int], *, timed: bool) -> Iterator[Any]:
        """Return an iterator over records that notes which one was taken last; it makes no frame for each."""
        return chain.from_iterable(self._stretches(rows, span, numbers, timed=timed))

    def _stretches(
        self, rows: Sequence[Any], span: int, numbers: Sequence[int], *, timed: bool
    ) -> Iterator[Iterable[Any]]:
        pid = os.getpid()
        for first in range(0, len(rows), STRETCH):
            if os.getpid() != pid:
                os._exit(0)  # a fork that the function made and did not end
            part = list(rows[first : first + STRETCH])
            _part[0] = part
            begin, end = numbers[first], numbers[first + len(part) - 1] + 1
            if timed and end - begin > len(part):  # blank lines between them take numbers, too
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
        """Return the position, ``None`` where the function is called for no record."""
        span, first, records, timed = self._cells[:4]
        if not records:
            return None
        starts = self._starts[:records].tolist() if timed else [self._starts[0]]
        last = max(range(len(starts)), key=starts.__getitem__)
        seconds = (time.monotonic_ns() - starts[last]) / 1e9
        return Position(span, first + last, 1, seconds) if timed else Position(span, first, records, seconds)

    def seconds_left(self, limit: float) -> float:
        """Return the seconds that the record at hand has left of a limit, if most of it went to this record.

        Nothing is left of the limit of a task whose records take it together.
        """
        position = self.read()
        if position is None or position.records > 1 or position.seconds < limit / 2:
            return 0.0
        return max(0.0, limit - position.seconds)
