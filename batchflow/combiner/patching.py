"""Only what failed, tried again: what now succeeds goes to its place in the parts, the rest stays an error.

::

    chunk  r r x r x x r     x: records that failed; they are tried together, as a chunk of their own
    rows   1 2   3     4     a failure knows how many rows of its chunk stand before it
                ^   ^        so there the new rows are put in
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import Any, NamedTuple

from batchflow.checkpoint.history import DoneChunk, DonePart
from batchflow.core.chunks import Chunk, Key, Piece, Slice
from batchflow.core.outcomes import Failure, SettledChunk, SpanCount
from batchflow.io.sources import ChunkCursor, KeyedChunk, Source
from batchflow.io.sources.base import is_rest


class FailedRange(NamedTuple):
    """Failed records of a done chunk, as a chunk to be tried: read in one go, whatever lies between them."""

    key: Key
    """Place among all holes."""
    number: int
    """Of the done chunk in the ledger."""
    failures: Sequence[Failure]
    """Of single records, or one of the rest of a span; none: the whole chunk is tried."""
    chunk: Chunk

    @property
    def is_rest(self) -> bool:
        """Whether it is about all of a span from a record on, which could not be read."""
        return self.chunk.spans[0].only is None


def find_holes(chunks: Sequence[tuple[int, DoneChunk]], source: Source) -> Iterator[FailedRange]:
    """Yield what is to be tried again, in input order."""
    at = 0
    for number, done in chunks:
        for failures, chunk in _parts(done, source):
            yield FailedRange((at,), number, failures, chunk)
            at += 1


def _parts(done: DoneChunk, source: Source) -> Iterator[tuple[tuple[Failure, ...], Chunk]]:
    """Yield what failed of a chunk: records together, but by itself what nobody could read to its end."""
    if any(failure.record is None for failure in done.failures):
        yield (), done.chunk._replace(weight=max(1, done.stats.rows_in))
        return
    for rest, group in groupby(done.failures, key=is_rest):
        failures = tuple(group)
        if rest:
            yield from (((failure,), source.select(done.chunk, failure)) for failure in failures)
        else:
            yield failures, source.selection(done.chunk, failures)


class FailedRangeCursor(ChunkCursor):
    """Draws the holes, one after the other."""

    def __init__(self, holes: Sequence[FailedRange], source: Source) -> None:
        self._holes = holes
        self._source = source
        self._next = 0
        self.total: int | None = sum(hole.chunk.weight for hole in holes)

    @property
    def frontier(self) -> Key:
        """Key below which every chunk has been drawn."""
        return (self._next,)

    def draw(self, weight: int) -> KeyedChunk | None:
        """Return the next hole, whatever it weighs."""
        del weight
        if self._next == len(self._holes):
            return None
        hole = self._holes[self._next]
        self._next += 1
        return KeyedChunk(hole.key, hole.chunk, self._source.records_of(hole.chunk))


class NewRows(NamedTuple):
    """Some rows of a piece on their way to their place."""

    row: int
    """Old rows of their chunk before them."""
    piece: Piece
    start: int
    stop: int


@dataclass
class Patch:
    """What became of one done chunk of which something was tried again."""

    number: int
    """Of the chunk in the ledger."""
    done: DoneChunk
    """As it was; of a chunk that was tried as a whole, as it is."""
    rows: list[NewRows] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    """Those of the new rows, and those that tell columns and types only."""
    added: int = 0
    _hole: Key = ()
    _used: int = 0
    """Numbers used up so far by what came of the hole at hand."""

    def fill(self, hole: FailedRange, settled: SettledChunk) -> None:
        """Take over what came of a hole, or of a part of it; holes and their parts come in order."""
        pieces = tuple(settled.payload or ())
        self.pieces += pieces
        if hole.is_rest:
            self._fill_rest(hole, settled, pieces)
        else:
            self._fill_records(hole, settled, pieces)

    def _fill_records(self, hole: FailedRange, settled: SettledChunk, pieces: Sequence[Piece]) -> None:
        """Take over what came of single records."""
        olds = _by_number(hole)
        news = _by_record(settled.failures)
        chunk, rows = settled.chunk, _Rows(pieces)
        for at, span in enumerate(chunk.spans):
            assert span.only is not None
            stop = None if chunk.take is None else chunk.skip + chunk.take
            tally = settled.tallies[at] if settled.tallies else None
            gone, given, fine = None, 0, 0
            for index, number in enumerate(span.only[chunk.skip : stop]):
                old = olds[span.input.uri, number]
                new = news.get((span.input.uri, index)) or gone or news.get(("", None))
                gone = new if new is not None and is_rest(new) else gone
                if new is not None:
                    self.failures.append(_renewed(new, old, self.added))
                elif tally is None or tally[index] < 0:
                    self.failures.append(old._replace(row=old.row + self.added))  # it is gone, which is no success
                else:
                    given, fine = given + tally[index], fine + 1
                    if tally[index]:
                        self._insert(old.row, rows.take(tally[index]))
            self._count(SpanCount(span.input.uri, 0, 0, given, -fine))

    def _insert(self, row: int, news: Iterable[tuple[Piece, int, int]]) -> None:
        for piece, start, stop in news:
            self.added += stop - start
            last = self.rows[-1] if self.rows else None
            if last is not None and last.piece is piece and last.row == row and last.stop == start:
                self.rows[-1] = NewRows(row, piece, last.start, stop)
            else:
                self.rows.append(NewRows(row, piece, start, stop))

    def _fill_rest(self, hole: FailedRange, settled: SettledChunk, pieces: Sequence[Piece]) -> None:
        """Take over what came of the rest of a span."""
        (old,) = hole.failures
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
        self._insert(old.row, ((piece, 0, piece.rows) for piece in pieces if piece.rows))

    def _count(self, more: SpanCount) -> None:
        """Add to the count of a span."""
        spans = tuple(
            SpanCount(count.uri, *(one + two for one, two in zip(count[1:], more[1:], strict=True)))
            if count.uri == more.uri
            else count
            for count in self.done.stats.spans
        )
        self.done = self.done._replace(stats=self.done.stats._replace(spans=spans))

    @property
    def changed(self) -> DoneChunk:
        """The chunk as it is now."""
        return self.done._replace(failures=tuple(self.failures), pieces=(*self.done.pieces, *self.pieces))


class _Rows:
    """Rows of some pieces, taken from the first one on."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = iter(pieces)
        self._piece: Piece | None = None
        self._at = 0

    def take(self, count: int) -> Iterator[tuple[Piece, int, int]]:
        """Yield where the next rows are: piece, first row, and the one behind the last."""
        while count:
            if self._piece is None or self._at == self._piece.rows:
                self._piece, self._at = next(self._pieces), 0
            start = self._at
            self._at = min(self._piece.rows, start + count)
            count -= self._at - start
            if self._at > start:
                yield self._piece, start, self._at


def _by_number(hole: FailedRange) -> dict[tuple[str, int], Failure]:
    """Return the failures of a hole by input and number, as its chunk selects them."""
    failures: dict[str, list[Failure]] = {}
    for failure in hole.failures:
        failures.setdefault(failure.source, []).append(failure)
    found: dict[tuple[str, int], Failure] = {}
    for span in hole.chunk.spans:
        uri = span.input.uri
        found.update(((uri, number), old) for number, old in zip(span.only or (), failures[uri], strict=True))
    return found


def _by_record(failures: Sequence[Failure]) -> dict[tuple[str, int | None], Failure]:
    """Return new failures by input and record; what is about all of a chunk has neither."""
    return {
        ("", None) if failure.record is None else (failure.source, failure.record): failure for failure in failures
    }


def _renewed(new: Failure, old: Failure, added: int) -> Failure:
    """Return the failure of a record that failed again: where it is stays, and attempts add up."""
    return new._replace(
        source=old.source,
        start=old.start,
        stop=old.stop,
        record=old.record,
        payload=old.payload,
        attempts=new.attempts + old.attempts,
        row=old.row + added,
    )


def _renumbered(failure: Failure, old: Failure, used: int, added: int) -> Failure:
    """Return a failure of a hole as one of its chunk: its number counts on, and so do its attempts."""
    if failure.record is None:  # of the one record that the hole is about
        failure = failure._replace(record=0, payload=old.payload, start=old.start, stop=old.stop)
    record = (failure.record or 0) + used + (old.record or 0)
    row = failure.row + old.row + added
    return failure._replace(record=record, attempts=failure.attempts + old.attempts, row=row)


def replaced(hole: FailedRange, number: int, done: DoneChunk, settled: SettledChunk) -> Patch:
    """Return the patch of a chunk that was tried as a whole, or of a part of one."""
    pieces = list(settled.payload or ())
    weight = max(1, done.chunk.weight * settled.chunk.weight // hole.chunk.weight)
    chunk = settled.chunk._replace(weight=weight)
    changed = DoneChunk(chunk, settled.stats, settled.failures, (), settled.counted)
    rows = [NewRows(0, piece, 0, piece.rows) for piece in pieces]
    return Patch(number, changed, rows, list(settled.failures), pieces)


# --- where new rows go ----------------------------------------------------------------------------


class Insertion(NamedTuple):
    """New rows of a chunk on their way into a part."""

    row: int
    """Rows of the part before them."""
    number: int
    """Of their chunk."""
    news: NewRows


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
        for news in patch.rows:
            if news.start == news.stop:
                continue  # the piece tells columns and types only
            part, at = _place(starts.get(patch.number), news.row) or _behind(sequence, places[patch.number], parts)
            found[part.name].append(Insertion(at, patch.number, news))
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


def patched(
    part: DonePart, path: str, news: Sequence[Insertion], order: Sequence[int]
) -> tuple[DonePart, list[Piece | Slice]]:
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
        _, piece, start, stop = new.news
        whole = (start, stop) == (0, piece.rows)
        pieces.append(piece if whole else Slice(piece.path, start, stop, of_piece=True))
        counts[new.number] = counts.get(new.number, 0) + stop - start
    if at < part.rows:
        pieces.append(Slice(path, at))
    chunks: Any = tuple(sorted(counts.items(), key=lambda item: places[item[0]]))
    return part._replace(chunks=chunks, rows=sum(counts.values())), pieces
