"""Retry of failed records: new rows are inserted at their position in the parts, the rest stay errors.

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
    """Failed records of a finished chunk, retried as one chunk whatever lies between them."""

    key: Key
    """Position among all failed ranges."""
    number: int
    """Ledger number of the finished chunk."""
    failures: Sequence[Failure]
    """Failures of single records, or the failure of the rest of a span; none: retry the whole chunk."""
    chunk: Chunk

    @property
    def is_rest(self) -> bool:
        """Whether it covers the rest of a span that could not be read."""
        return self.chunk.spans[0].only is None


def find_holes(chunks: Sequence[tuple[int, DoneChunk]], source: Source) -> Iterator[FailedRange]:
    """Yield the failed ranges to retry, in input order."""
    at = 0
    for number, done in chunks:
        for failures, chunk in _parts(done, source):
            yield FailedRange((at,), number, failures, chunk)
            at += 1


def _parts(done: DoneChunk, source: Source) -> Iterator[tuple[tuple[Failure, ...], Chunk]]:
    """Yield the failures of a chunk: records together, each unreadable rest of a span by itself."""
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
    """Cursor over the failed ranges, one at a time."""

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
        """Return the next failed range, regardless of its weight."""
        del weight
        if self._next == len(self._holes):
            return None
        hole = self._holes[self._next]
        self._next += 1
        return KeyedChunk(hole.key, hole.chunk, self._source.records_of(hole.chunk))


class NewRows(NamedTuple):
    """Rows of a piece to be inserted."""

    row: int
    """Rows of the old chunk before them."""
    piece: Piece
    start: int
    stop: int


@dataclass
class Patch:
    """Result of the retries of one finished chunk."""

    number: int
    """Ledger number of the chunk."""
    done: DoneChunk
    """Chunk before the retry; for a chunk retried as a whole, after it."""
    rows: list[NewRows] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    """Pieces of the new rows, and pieces that hold a schema only."""
    added: int = 0
    _hole: Key = ()
    _used: int = 0
    """Record numbers used so far by the results of the current range."""

    def fill(self, hole: FailedRange, settled: SettledChunk) -> None:
        """Add the result of a failed range or of a part of it; ranges and parts come in order."""
        pieces = tuple(settled.payload or ())
        self.pieces += pieces
        if hole.is_rest:
            self._fill_rest(hole, settled, pieces)
        else:
            self._fill_records(hole, settled, pieces)

    def _fill_records(self, hole: FailedRange, settled: SettledChunk, pieces: Sequence[Piece]) -> None:
        """Add the results of single records."""
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
        """Add the result of the rest of a span."""
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
        """Add to the record count of a span."""
        spans = tuple(
            SpanCount(count.uri, *(one + two for one, two in zip(count[1:], more[1:], strict=True)))
            if count.uri == more.uri
            else count
            for count in self.done.stats.spans
        )
        self.done = self.done._replace(stats=self.done.stats._replace(spans=spans))

    @property
    def changed(self) -> DoneChunk:
        """Chunk after the retry."""
        return self.done._replace(failures=tuple(self.failures), pieces=(*self.done.pieces, *self.pieces))


class _Rows:
    """Sequential reader of rows in pieces."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = iter(pieces)
        self._piece: Piece | None = None
        self._at = 0

    def take(self, count: int) -> Iterator[tuple[Piece, int, int]]:
        """Yield the locations of the next rows: piece, first row, end row."""
        while count:
            if self._piece is None or self._at == self._piece.rows:
                self._piece, self._at = next(self._pieces), 0
            start = self._at
            self._at = min(self._piece.rows, start + count)
            count -= self._at - start
            if self._at > start:
                yield self._piece, start, self._at


def _by_number(hole: FailedRange) -> dict[tuple[str, int], Failure]:
    """Return the failures of a range by input and number, as its chunk selects them."""
    failures: dict[str, list[Failure]] = {}
    for failure in hole.failures:
        failures.setdefault(failure.source, []).append(failure)
    found: dict[tuple[str, int], Failure] = {}
    for span in hole.chunk.spans:
        uri = span.input.uri
        found.update(((uri, number), old) for number, old in zip(span.only or (), failures[uri], strict=True))
    return found


def _by_record(failures: Sequence[Failure]) -> dict[tuple[str, int | None], Failure]:
    """Return new failures by input and record; a failure of the whole chunk has neither."""
    return {
        ("", None) if failure.record is None else (failure.source, failure.record): failure for failure in failures
    }


def _renewed(new: Failure, old: Failure, added: int) -> Failure:
    """Return the failure of a record that failed again, with its old location and summed attempts."""
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
    """Return a failure of a range as one of its chunk: number and attempts are added to the old ones."""
    if failure.record is None:  # of the one record that the hole is about
        failure = failure._replace(record=0, payload=old.payload, start=old.start, stop=old.stop)
    record = (failure.record or 0) + used + (old.record or 0)
    row = failure.row + old.row + added
    return failure._replace(record=record, attempts=failure.attempts + old.attempts, row=row)


def replaced(hole: FailedRange, number: int, done: DoneChunk, settled: SettledChunk) -> Patch:
    """Return the patch of a chunk that was retried as a whole, or of a part of one."""
    pieces = list(settled.payload or ())
    weight = max(1, done.chunk.weight * settled.chunk.weight // hole.chunk.weight)
    chunk = settled.chunk._replace(weight=weight)
    changed = DoneChunk(chunk, settled.stats, settled.failures, (), settled.counted)
    rows = [NewRows(0, piece, 0, piece.rows) for piece in pieces]
    return Patch(number, changed, rows, list(settled.failures), pieces)


# --- where new rows go ----------------------------------------------------------------------------


class Insertion(NamedTuple):
    """New rows of a chunk to be inserted into a part."""

    row: int
    """Rows of the part before them."""
    number: int
    """Ledger number of their chunk."""
    news: NewRows


def insertions(
    parts: Sequence[DonePart], order: Sequence[int], patches: Sequence[Patch]
) -> dict[str, list[Insertion]]:
    """Return the insertions into each part that changes, in order.

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
    """Return part and row of a row of a chunk, or ``None`` if the chunk is in no part yet."""
    if not stretches:
        return None
    ends = list(accumulate(rows for _, _, rows in stretches))
    at = min(bisect_left(ends, row), len(ends) - 1)
    part, start, rows = stretches[at]
    return part, start + row - (ends[at] - rows)


def _behind(
    sequence: list[tuple[int, DonePart, int]], place: int, parts: Sequence[DonePart]
) -> tuple[DonePart, int]:
    """Return the insertion point of rows whose chunk had none: after those of the chunk before it."""
    at = bisect_right(sequence, place, key=lambda item: item[0])
    if at == 0:
        return parts[0], 0
    _, part, row = sequence[at - 1]
    return part, row


def patched(
    part: DonePart, path: str, news: Sequence[Insertion], order: Sequence[int]
) -> tuple[DonePart, list[Piece | Slice]]:
    """Return a part with new rows, and the slices that it is assembled from.

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
