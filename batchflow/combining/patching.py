"""Only what failed, tried again: what now succeeds goes to its place in the parts, the rest stays an error.

::

    chunk  r r x r x x r     x: records that failed; each hole is tried as a chunk of its own
    rows   1 2   3     4     a failure knows how many rows of its chunk stand before it
                ^   ^        so there the rows of a hole are put in
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

from batchflow.combining.order import Settled
from batchflow.ledger import DoneChunk, DonePart
from batchflow.model import Chunk, Failure, Key, Piece, Slice, SpanCount
from batchflow.sources import Cursor, Drawn, Source


class Hole(NamedTuple):
    """What a failure in a done chunk is about, as a chunk to be tried."""

    key: Key
    """Place among all holes."""
    number: int
    """Of the done chunk in the ledger."""
    failure: Failure | None
    """``None``: the whole chunk, of which nothing was kept."""
    chunk: Chunk


def find_holes(chunks: Sequence[tuple[int, DoneChunk]], source: Source) -> Iterator[Hole]:
    """Yield what is to be tried again, in input order."""
    at = 0
    for number, done in chunks:
        if any(failure.record is None for failure in done.failures):
            failures: Sequence[Failure | None] = [None]
        else:
            failures = done.failures
        for failure in failures:
            chunk = done.chunk if failure is None else source.select(done.chunk, failure)
            yield Hole((at,), number, failure, chunk)
            at += 1


class HoleCursor(Cursor):
    """Draws the holes, one after the other."""

    def __init__(self, holes: Sequence[Hole], source: Source) -> None:
        self._holes = holes
        self._source = source
        self._next = 0
        self.total: int | None = len(holes)

    @property
    def frontier(self) -> Key:
        """Key below which every chunk has been drawn."""
        return (self._next,)

    def draw(self, weight: int) -> Drawn | None:
        """Return the next hole, whatever it weighs."""
        del weight
        if self._next == len(self._holes):
            return None
        hole = self._holes[self._next]
        self._next += 1
        return Drawn(hole.key, hole.chunk, self._source.records_of(hole.chunk))


@dataclass
class Patch:
    """What became of one done chunk of which something was tried again."""

    number: int
    """Of the chunk in the ledger."""
    done: DoneChunk
    """As it was; of a chunk that was tried as a whole, as it is."""
    rows: list[tuple[int, Piece]] = field(default_factory=list)
    """New rows, each with how many of the old ones stand before it."""
    failures: list[Failure] = field(default_factory=list)
    added: int = 0
    _hole: Key = ()
    _used: int = 0
    """Numbers used up so far by what came of the hole at hand."""

    def fill(self, hole: Hole, settled: Settled) -> None:
        """Take over what came of a hole, or of a part of it; holes and their parts come in order."""
        old = hole.failure
        assert old is not None
        if hole.key != self._hole:
            self._hole, self._used = hole.key, 0
            self._count(SpanCount(old.source, -1, -1, 0, -1))
        self.failures += [_renumbered(bad, old, self._used, self.added) for bad in settled.failures]
        if settled.key == hole.key and not settled.stats.rows_in and not settled.failures:
            self.failures.append(old)  # there is nothing any more, which is no success
        known = settled.stats.spans if settled.stats.rows_in else (SpanCount(old.source, 1, 1, 0, 1),)
        for count in known:
            self._count(count)
            self._used += count.positions
        for piece in settled.payload or ():
            self.rows.append((old.row, piece))
            self.added += piece.rows

    def _count(self, more: SpanCount) -> None:
        """Add to the count of a span."""
        spans = tuple(
            SpanCount(count.uri, *(one + two for one, two in zip(count[1:], more[1:], strict=True)))
            if count.uri == more.uri else count
            for count in self.done.stats.spans
        )  # fmt: skip
        self.done = self.done._replace(stats=self.done.stats._replace(spans=spans))

    @property
    def changed(self) -> DoneChunk:
        """The chunk as it is now."""
        pieces = (*self.done.pieces, *(piece for _, piece in self.rows))
        return self.done._replace(failures=tuple(self.failures), pieces=pieces)


def _renumbered(failure: Failure, old: Failure, used: int, added: int) -> Failure:
    """Return a failure of a hole as one of its chunk: its number counts on, and so do its attempts."""
    if failure.record is None:  # of the one record that the hole is about
        failure = failure._replace(record=0, payload=old.payload, start=old.start, stop=old.stop)
    record = (failure.record or 0) + used + (old.record or 0)
    row = failure.row + old.row + added
    return failure._replace(record=record, attempts=failure.attempts + old.attempts, row=row)


def replaced(number: int, settled: Settled) -> Patch:
    """Return the patch of a chunk that was tried as a whole, or of a part of one."""
    pieces = tuple(settled.payload or ())
    done = DoneChunk(settled.chunk, settled.stats, settled.failures, (), settled.counted)
    return Patch(number, done, [(0, piece) for piece in pieces], list(settled.failures))


# --- where new rows go ----------------------------------------------------------------------------


class Insertion(NamedTuple):
    """New rows of a chunk on their way into a part."""

    row: int
    """Rows of the part before them."""
    number: int
    """Of their chunk."""
    piece: Piece


def insertions(
    parts: Sequence[DonePart], order: Sequence[int], patches: Sequence[Patch]
) -> dict[str, list[Insertion]]:
    """Return, for each part that changes, what is put into it, in order.

    Parameters
    ----------
    parts
        In order; at least one.
    order
        Numbers of all chunks, in input order.
    patches
        In input order.
    """
    places = {number: at for at, number in enumerate(order)}
    starts: dict[int, list[tuple[DonePart, int, int]]] = defaultdict(list)
    sequence: list[tuple[int, DonePart, int]] = []
    for part in parts:
        row = 0
        for number, rows in part.chunks:
            starts[number].append((part, row, rows))
            row += rows
            sequence.append((places[number], part, row))
    found: dict[str, list[Insertion]] = defaultdict(list)
    for patch in patches:
        for row, piece in patch.rows:
            if not piece.rows:
                continue  # it tells columns and types only
            part, at = _place(starts.get(patch.number), row) or _behind(sequence, places[patch.number], parts)
            found[part.name].append(Insertion(at, patch.number, piece))
    return found


def _place(stretches: list[tuple[DonePart, int, int]] | None, row: int) -> tuple[DonePart, int] | None:
    """Return part and row of a row of a chunk, ``None`` where the chunk is in no part yet."""
    if not stretches:
        return None
    ends = list(accumulate(rows for _, _, rows in stretches))
    at = min(bisect_left(ends, row), len(ends) - 1)
    part, start, rows = stretches[at]
    return part, start + row - (ends[at] - rows)


def _behind(
    sequence: list[tuple[int, DonePart, int]], place: int, parts: Sequence[DonePart]
) -> tuple[DonePart, int]:
    """Return where rows go whose chunk had none: behind those of the chunk before it."""
    at = bisect_right(sequence, place, key=lambda item: item[0])
    if at == 0:
        return parts[0], 0
    _, part, row = sequence[at - 1]
    return part, row


def patched(part: DonePart, path: str, news: Sequence[Insertion], order: Sequence[int]) -> tuple[
    DonePart, list[Piece | Slice]
]:  # fmt: skip
    """Return a part with new rows, and what it is put together from.

    Parameters
    ----------
    path
        Of the part as it is.
    order
        Numbers of all chunks, in input order.
    """
    places = {number: at for at, number in enumerate(order)}
    counts = dict(part.chunks)
    pieces: list[Piece | Slice] = []
    at = 0
    for new in news:
        if new.row > at:
            pieces.append(Slice(path, at, new.row))
            at = new.row
        pieces.append(new.piece)
        counts[new.number] = counts.get(new.number, 0) + new.piece.rows
    if at < part.rows:
        pieces.append(Slice(path, at))
    chunks: Any = tuple(sorted(counts.items(), key=lambda item: places[item[0]]))
    return part._replace(chunks=chunks, rows=sum(counts.values())), pieces
