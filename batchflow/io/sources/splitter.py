"""Files into chunks: big ones are cut, small ones are packed, and those that cannot be cut go first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TypeAlias

from batchflow.core.chunks import Chunk, InputFile, Key, Span
from batchflow.core.coverage import NOTHING, Coverage, Range, key_of
from batchflow.io.sources.base import ChunkCursor, KeyedChunk
from batchflow.io.sources.compression import RATIO, Decompressed, by_magic, open_text
from batchflow.io.sources.file_source import FileSource
from batchflow.io.sources.paths import open_input

FILE_WEIGHT = 1024
"""What a file costs at least, however short: opening it, as the bytes that could be read meanwhile."""
_LOOK = 4 << 20
"""Bytes of what a compressed file holds that are looked at to tell how much that is."""
PACK_LIMIT = 10_000
"""Files in one chunk at most: its description travels with the task."""


def processing_weight(item: InputFile) -> int:
    """Return what a file costs to process, in bytes of plain text."""
    return max(FILE_WEIGHT, item.size * (RATIO if item.compression else 1))


def expansion_factor(item: InputFile) -> float | None:
    """Return how many times as much a file holds as it is thought to, by its beginning; or that nobody knows."""
    try:
        with closing(open_text(open_input(item.uri), item.compression)) as stream:
            stream.read(_LOOK)
            return stream.ratio / RATIO if isinstance(stream, Decompressed) else None
    except OSError:
        return None  # the worker that reads the file tells what is wrong with it


def is_compressed(chunk: Chunk) -> bool:
    """Whether the weight of a chunk is a guess, since it is a file of which nobody knows what it holds."""
    return chunk.spans[0].input.compression is not None


def total_weight(inputs: Sequence[InputFile]) -> int:
    """Return what all files cost; of a single one only its bytes, which are what it is cut by."""
    return (
        inputs[0].size if len(inputs) == 1 and not inputs[0].compression else sum(map(processing_weight, inputs))
    )


Cuts: TypeAlias = Callable[[int], tuple[Span, int] | None]
"""Cuts the next span of about a weight off an input; returns it and its weight, ``None`` at the end."""


class ByteSplitter:
    """Cuts a range of a plain file at any byte; a record belongs to the span in which it begins."""

    def __init__(self, item: InputFile, gap: Range) -> None:
        self._input = item
        self._start, stop = gap
        self._stop = item.size if stop is None else stop

    def cut(self, weight: int) -> tuple[Span, int] | None:
        """Return the next span and its bytes, ``None`` at the end of the range."""
        start, size = self._start, self._stop
        if start >= size:
            return None
        stop = start + max(1, weight)
        if size - stop < weight // 2:
            stop = size
        self._start = stop
        return Span(self._input, start, stop), stop - start


def uncut(item: InputFile, gap: Range) -> Cuts:
    """Return a function that gives a range of an input as one span."""
    spans = iter([(Span(item, *gap), processing_weight(item))])
    return lambda _: next(spans, None)


class FileCursor(ChunkCursor):
    """Draws chunks from a list of files: what a halved chunk lacks first, then heavy files that cannot be cut.

    All others come in order, but for what is done.
    """

    def __init__(
        self, source: FileSource, inputs: Sequence[InputFile], heavy: int | None, done: Coverage = NOTHING
    ) -> None:
        self._source = source
        self._inputs = inputs
        self._gaps = [done.gaps(item) for item in inputs]
        self._next = 0
        self._cuts: Cuts | None = None
        self._key: Key = (0, 0)
        self._heavy = self._heaviest_first(heavy) if heavy is not None else []
        self._drawn_early = set(self._heavy)
        places = {item.identity: at for at, item in enumerate(inputs)}
        self._leftovers = [
            KeyedChunk(key_of(chunk, places[chunk.spans[0].input.identity]), chunk) for chunk in done.leftovers()
        ]
        self.total: int | None = self._weight_left()

    def _weight_left(self) -> int:
        """Return what all files cost that are not done."""
        if self._gaps.count(None) == len(self._gaps):
            return total_weight(self._inputs)
        left = sum(drawn.chunk.weight for drawn in self._leftovers)
        for item, gaps in zip(self._inputs, self._gaps, strict=True):
            if gaps is None:
                left += processing_weight(item)
            else:
                left += sum((item.size if stop is None else stop) - start for start, stop in gaps)
        return left

    def _heaviest_first(self, heavy: int) -> list[int]:
        """Return the files to start with, the heaviest last so that it is popped first."""
        whole = [
            at
            for at, item in enumerate(self._inputs)
            if self._gaps[at] is None and processing_weight(item) > heavy and not self._source.cuttable(item)
        ]
        return sorted(whole, key=lambda at: processing_weight(self._inputs[at]))

    @property
    def frontier(self) -> Key:
        """Key below which every chunk has been drawn."""
        return (self._next, 0) if self._cuts is None else self._key

    def draw(self, weight: int) -> KeyedChunk | None:
        """Cut and return the next chunk of about this weight; ``None`` at the end."""
        if self._leftovers:
            return self._leftovers.pop()
        if self._heavy:
            at = self._heavy.pop()
            item = self._inputs[at]
            return KeyedChunk((at, 0), Chunk((Span(item),), processing_weight(item)))
        while self._cuts is not None or self._starts_cut(weight):
            cut = self._cuts(weight) if self._cuts else None
            if cut is not None:
                span, cost = cut
                # The frontier is behind the key: a file given whole ends at no byte that is known.
                self._key = (self._next, span.start + 1 if span.stop is None else span.stop)
                return KeyedChunk((self._next, span.start), Chunk((span,), cost))
            self._cuts = None
            self._next += 1
        return self._pack(weight)

    def _starts_cut(self, weight: int) -> bool:
        """Begin to cut the next file if it is large and can be cut, or was cut before."""
        while self._next in self._drawn_early or (self._next < len(self._gaps) and self._gaps[self._next] == []):
            self._next += 1
        if self._next == len(self._inputs):
            return False
        item = self._inputs[self._next]
        gaps = self._gaps[self._next]
        if gaps is not None:
            self._cuts = _chained([self._source.cuts(item, gap) for gap in gaps])
            self._key = (self._next, 0)
            return True
        if processing_weight(item) < 2 * weight or not self._source.cuttable(item):
            return False
        item = _sniffed(item)
        if item.compression is not None or item.size == 0:
            return False
        self._cuts = self._source.cuts(item)
        self._key = (self._next, 0)
        return True

    def _pack(self, weight: int) -> KeyedChunk | None:
        """Gather whole files until they weigh enough, or are as many as the job counts."""
        spans: list[Span] = []
        packed = 0
        first = self._next
        most = self._source.per_chunk
        if most is not None:
            weight = sys.maxsize
        for at in range(first, min(first + (most or PACK_LIMIT), len(self._inputs))):
            item = self._inputs[at]
            cost = processing_weight(item)
            if at in self._drawn_early or self._gaps[at] is not None or (spans and packed + cost > weight):
                break
            spans.append(Span(item))
            packed += cost
            self._next = at + 1
        return KeyedChunk((first, 0), Chunk(tuple(spans), packed)) if spans else None


def _chained(many: Sequence[Cuts]) -> Cuts:
    """Return a function that cuts one range after the other."""
    left = list(many)

    def cut(weight: int) -> tuple[Span, int] | None:
        while left:
            found = left[0](weight)
            if found is not None:
                return found
            del left[0]
        return None

    return cut


def halves(source: FileSource, chunk: Chunk) -> Sequence[Chunk]:
    """Return a chunk of one span as two that are cut where the source may be cut.

    Of a span that cannot be cut any more, which holds one record, the chunk itself; of a file that cannot
    be cut at all, nothing.
    """
    (span,) = chunk.spans
    item = _sniffed(span.input) if span.whole else span.input
    if not source.cuttable(item) or item.compression is not None or not item.size:
        return ()
    gap = (span.start, span.stop)
    for weight in (max(1, chunk.weight // 2), 1):
        cut = source.cuts(item, gap)
        cuts = [cut(weight), cut(sys.maxsize)]
        if cuts[0] and cuts[0][0].whole:
            return ()  # it cannot be read at all
        if all(cuts):
            return [Chunk((part,), cost) for part, cost in filter(None, cuts)]
    return [chunk] if source.holds_one(span) else ()


def _sniffed(item: InputFile) -> InputFile:
    """Return an input with the compression that its first bytes show; asked only of files worth cutting."""
    try:
        with open_input(item.uri) as stream:
            return item._replace(compression=by_magic(stream.read(10)))
    except OSError:
        return item._replace(size=0)  # the worker that reads the file tells what is wrong with it
