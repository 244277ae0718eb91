"""Records in memory: sequences, generators, Arrow tables and frames, shipped with their tasks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from batchflow.core.chunks import UNKNOWN_VERSION, Chunk, InputFile, Key, Span
from batchflow.core.coverage import NOTHING, Coverage, Range
from batchflow.core.outcomes import Failure
from batchflow.errors import InputError
from batchflow.io.arrow.convert import NotTabularError, as_table, is_tabular, values_to_table
from batchflow.io.arrow.rows import Rows
from batchflow.io.sources.base import Block, ChunkCursor, KeyedChunk, Source, explain, is_rest

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "records"
"""What stands for the input in the error table."""
_BLOCK_ROWS = 8192


class RecordsSource(Source):
    """Records that the driver holds, or makes one after the other."""

    kind: ClassVar[str] = "records"
    in_memory: ClassVar[bool] = True

    def __init__(self, data: Any = None) -> None:
        self.data = data
        self._taken = False

    def inputs(self) -> list[InputFile]:
        """Return one input that stands for all records; its size is -1 where only the end tells."""
        if is_tabular(self.data):
            return [InputFile(NAME, self.data.num_rows)]
        sliced = isinstance(self.data, list | tuple | range) or hasattr(self.data, "shape")
        return [InputFile(NAME, len(self.data) if sliced else -1)]

    def identified(self, inputs: Sequence[InputFile]) -> list[InputFile]:
        """Return the input with the digits of its content; of a generator only running through it tells."""
        return [inputs[0]._replace(version="" if inputs[0].size < 0 else _digits(self.data))]

    def records_of(self, chunk: Chunk) -> Any:
        """Return the records of a chunk, as they travel.

        Raises
        ------
        InputError
            If they came from a generator.
        """
        (span,) = chunk.spans
        if span.input.size < 0:
            message = "these records come from a generator, which gives each of them once: pass a list instead"
            raise InputError(message)
        data = _sliced(self.data, span.start, span.stop or span.input.size)
        return data if span.only is None else _picked(data, span.only)

    def count(self, data: Any) -> int | None:
        """Return the number of records that travel with a task; a failure in the place of one is none."""
        if isinstance(data, list) and isinstance(data[0], _Raised):
            return None
        return data.segments[0].num_rows if isinstance(data, Rows) else len(data)

    def select(self, chunk: Chunk, failure: Failure) -> Chunk:
        """Return a chunk of one record, or of all from it on."""
        (span,) = chunk.spans
        first = span.start + (failure.record or 0)
        return Chunk((span._replace(start=first, stop=span.stop if is_rest(failure) else first + 1),), 1)

    def extent(self, item: InputFile) -> int | None:
        """Return the number of records, ``None`` for a generator."""
        return None if item.size < 0 else item.size

    def cursor(self, inputs: Sequence[InputFile], heavy: int | None, done: Coverage = NOTHING) -> ChunkCursor:
        """Return a cursor that slices a sequence, or reads a generator as the work goes on.

        Raises
        ------
        InputError
            If the data is a generator that another job has read.
        """
        del heavy
        if isinstance(self.data, Iterator):
            if self._taken:
                message = "these records come from an iterator, which another job has read: pass a new one"
                raise InputError(message)
            self._taken = True
        item = inputs[0]
        gaps = done.gaps(item)
        gaps = [(0, None)] if gaps is None else gaps
        return _LazyCursor(item, iter(self.data), gaps) if item.size < 0 else _SliceCursor(item, self.data, gaps)

    def shipped(self) -> Source:
        """Return the source as workers need it: the records travel with the tasks."""
        return RecordsSource()

    def cuttable(self, item: InputFile) -> bool:
        """Whether the records can be cut: always."""
        del item
        return True

    def table(self, rows: Sequence[Any]) -> pa.Table:
        """Return records as a table; those of an array of two dimensions are lists."""
        return values_to_table(list(rows) if getattr(rows, "ndim", 1) > 1 else rows)

    def halve(self, chunk: Chunk, data: Any, records: int) -> tuple[tuple[Chunk, Any], tuple[Chunk, Any]]:
        """Return the two halves of a chunk, each with its own records only."""
        one, two = self.cut(chunk, data, [records // 2], records)
        return one, two

    def cut(self, chunk: Chunk, data: Any, places: Sequence[int], records: int) -> list[tuple[Chunk, Any]]:
        """Return a chunk cut before some of its records, each part with its own records only."""
        (span,) = chunk.spans
        parts = []
        for start, stop in pairwise((0, *places, records)):
            part = span._replace(start=span.start + start, stop=span.start + stop)
            if span.only is not None:
                part = part._replace(only=span.only[start:stop])
            sliced = _sliced(data.segments[0] if isinstance(data, Rows) else data, start, stop)
            parts.append((Chunk((part,), max(1, stop - start)), sliced))
        return parts

    def blocks(self, span: Span, data: Any) -> Iterator[Block]:
        """Give the records that came with the task."""
        if isinstance(data, Rows):
            (data,) = data.segments
        if isinstance(data, list) and isinstance(data[0], _Raised):
            raise SourceError(data[0].message)
        count = data.num_rows if is_tabular(data) else len(data)
        for first in range(0, count, _BLOCK_ROWS):
            end = min(count, first + _BLOCK_ROWS)
            rows = data.slice(first, end - first) if is_tabular(data) else data[first:end]
            yield Block(span, rows, range(first, end), end, partial(_located, span))


class _Raised(NamedTuple):
    """Stands in the place of the record at which the user's iterator raised."""

    message: str


class SourceError(RuntimeError):
    """The user's iterator raised; there are no more records."""


class _SliceCursor(ChunkCursor):
    """Draws slices of some ranges of a sequence or table."""

    def __init__(self, item: InputFile, data: Any, gaps: Sequence[Range]) -> None:
        self._input = item
        self._data = data
        self._gaps = [(start, item.size if stop is None else stop) for start, stop in gaps]
        self._start = 0
        self.total: int | None = sum(stop - start for start, stop in self._gaps)

    @property
    def frontier(self) -> Key:
        return (0, self._start)

    def draw(self, weight: int) -> KeyedChunk | None:
        while self._gaps and self._gaps[0][0] >= self._gaps[0][1]:
            del self._gaps[0]
        if not self._gaps:
            return None
        start, end = self._gaps[0]
        stop = start + max(1, weight)
        if end - stop < weight // 2:
            stop = end
        self._gaps[0] = stop, end
        self._start = stop
        return _drawn(self._input, start, stop, _sliced(self._data, start, stop))


class _LazyCursor(ChunkCursor):
    """Draws some ranges from an iterator, once, as the work goes on; passes over what is done."""

    def __init__(self, item: InputFile, iterator: Iterator[Any], gaps: Sequence[Range]) -> None:
        self._input = item
        self._iterator = iterator
        self._gaps = list(gaps)
        self._start = 0
        self.total: int | None = None

    @property
    def frontier(self) -> Key:
        return (0, self._start)

    def draw(self, weight: int) -> KeyedChunk | None:
        data: list[Any] = []
        try:
            weight = self._pass_over(max(1, weight))
            data.extend(islice(self._iterator, weight))
        except Exception as error:
            self._iterator = iter([_Raised(f"the iterator raised {type(error).__name__}: {explain(error)}")])
        if not data and weight:
            data = list(islice(self._iterator, 1))
        if not data:
            return None
        start = self._start
        self._start = start + len(data)
        return _drawn(self._input, start, self._start, data)

    def _pass_over(self, weight: int) -> int:
        """Go to the next range that is missing; returns how many of its records to take, at most a weight."""
        while self._gaps:
            first, stop = self._gaps[0]
            for _ in islice(self._iterator, max(0, first - self._start)):
                self._start += 1
            if stop is None:
                return weight
            if self._start < stop:
                return min(weight, stop - self._start)
            del self._gaps[0]
        return 0


def _sliced(data: Any, start: int, stop: int) -> Any:
    return Rows([data.slice(start, stop - start)]) if is_tabular(data) else data[start:stop]


def _picked(data: Any, places: Sequence[int]) -> Any:
    if isinstance(data, Rows):
        return Rows([data.segments[0].take(list(places))])
    return [data[at] for at in places]


def _located(span: Span, number: int) -> tuple[int, int]:
    """Return the range of a record, by its number in a span."""
    at = span.start + (number if span.only is None else span.only[number])
    return at, at + 1


def _digits(data: Any) -> str:
    """Return the fingerprint of records; records that cannot be compared get one that no others have."""
    from batchflow.core.fingerprint import examine  # 5 ms, as for an output that is kept

    return examine(data).digest or f"{UNKNOWN_VERSION}{os.urandom(8).hex()}"


def _drawn(item: InputFile, start: int, stop: int, data: Any) -> KeyedChunk:
    return KeyedChunk((0, start), Chunk((Span(item, start, stop),), stop - start), data)


def as_records(data: Any) -> RecordsSource:
    """Return a source over any iterable, generator, Arrow table, pandas or Polars frame.

    Raises
    ------
    InputError
        If the data cannot be iterated over, or is text, bytes or a mapping, which is most often a mistake.
    """
    if hasattr(data, "columns") and (hasattr(data, "iloc") or hasattr(data, "iter_rows")):
        return RecordsSource(data=_frame(data))
    if hasattr(data, "__arrow_c_stream__") or hasattr(data, "__arrow_c_array__"):
        try:
            return RecordsSource(data=as_table(data))
        except NotTabularError:  # an array or a series, whose elements are the records
            return RecordsSource(data=data.to_pylist() if hasattr(data, "to_pylist") else list(data))
    if isinstance(data, str | bytes | dict) or not isinstance(data, Iterable) or getattr(data, "shape", 1) == ():
        message = f"records() takes a list, range, generator, Arrow table or frame, not {type(data).__name__}"
        raise InputError(message)
    return RecordsSource(data=list(data) if isinstance(data, set | frozenset) else data)


def _frame(frame: Any) -> Any:
    """Return a frame of pandas or Polars as a table, or as dicts if a column holds what Arrow has no type for.

    Raises
    ------
    InputError
        If two columns have one name.
    """
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        message = f"records() takes no frame with two columns named {name!r}: rename one"
        raise InputError(message)
    try:
        return as_table(frame)
    except NotTabularError:
        return list(frame.iter_rows(named=True)) if hasattr(frame, "iter_rows") else _pandas_rows(frame, names)


def _pandas_rows(frame: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of a frame with the objects that its columns hold; what pandas calls missing is ``None``."""
    columns = []
    for index in range(len(names)):
        column = frame.iloc[:, index]
        missing = column.isna().tolist()
        cells = (column.sparse.to_dense() if hasattr(column, "sparse") else column).tolist()
        columns.append([None if gone else cell for cell, gone in zip(cells, missing, strict=True)])
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
