"""Parquet files: cut by row groups, and inside a large row group."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar

from batchflow.core.chunks import InputFile, Span
from batchflow.core.coverage import Range
from batchflow.core.text import did_you_mean
from batchflow.errors import FormatError
from batchflow.io.sources.base import Block
from batchflow.io.sources.file_source import FileSource
from batchflow.io.sources.paths import is_elsewhere, open_input
from batchflow.io.sources.splitter import Cuts, uncut

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_ROWS = 8192
"""Rows decoded at a time."""
_FOOTER_BYTES = 64 << 10
"""What Arrow reads of the end of a file, where it expects the footer."""


@dataclass(frozen=True)
class ParquetSource(FileSource):
    """Parquet files; a record is a row as a dict."""

    kind: ClassVar[str] = "parquet"
    columns: tuple[str, ...] | None = None
    _open: list[_OpenFile] = field(default_factory=list, init=False, compare=False, repr=False)
    """The file that this process read last."""

    def cuttable(self, item: InputFile) -> bool:
        """Whether a file can be cut: always, whatever its columns are compressed with."""
        return True

    def options(self) -> dict[str, Any]:
        """Return the columns that the user chose."""
        return {"kind": self.kind, "columns": self.columns and list(self.columns)}

    def extent(self, item: InputFile) -> int | None:
        """Return the rows of a file, which its footer tells."""
        import pyarrow.parquet as pq

        with closing(open_input(item.uri)) as raw, pq.ParquetFile(raw) as file:
            return int(file.metadata.num_rows)

    def cuts(self, item: InputFile, gap: Range = (0, None)) -> Cuts:
        """Return a function that cuts ranges of rows, at the ends of row groups where it can."""
        import pyarrow.parquet as pq

        try:
            with closing(open_input(item.uri)) as raw, pq.ParquetFile(raw) as file:
                ends = row_group_ends(file)
        except Exception:
            return uncut(item, gap)
        return RowGroupSplitter(item, ends, gap).cut

    def needs(self, span: Span) -> list[tuple[int, int]]:
        """Return where the row groups of a span lie, and the footer."""
        import pyarrow.parquet as pq

        size = span.input.size
        try:
            with closing(open_input(span.input.uri)) as raw, pq.ParquetFile(raw) as file:
                groups = row_groups(row_group_ends(file), span.start, span.stop)
                ranges = [_bytes_of(file.metadata.row_group(at)) for at in groups]
                footer = max(_FOOTER_BYTES, file.metadata.serialized_size + 8)
        except Exception:
            return super().needs(span)
        return [*ranges, (max(0, size - footer), size)]

    def record_weight(self, inputs: Sequence[InputFile]) -> float:
        """Return the bytes on disk of a row of the first file that has any."""
        import pyarrow.parquet as pq

        for item in inputs:
            try:
                with closing(open_input(item.uri)) as raw, pq.ParquetFile(raw) as file:
                    rows = int(file.metadata.num_rows)
            except Exception:
                continue
            if rows:
                return item.size / rows
        return 1.0

    def blocks(self, span: Span, data: Any) -> Iterator[Block]:
        """Read the rows of one span as tables."""
        del data
        away = is_elsewhere(span.input.uri)
        if away:
            self._open.clear()  # another span of it came with another task
        file = self._opened(span.input)
        try:
            for row, batch in file.rows(span.start, span.stop):
                yield _block(span, batch, row)
        except Exception:
            self._open.clear()
            raise
        if away or span.stop in {None, file.count}:
            self._open.clear()

    def _opened(self, item: InputFile) -> _OpenFile:
        """Return the file that was read last if it is this one, else open it."""
        if not self._open or self._open[0].item != item:
            self._open[:] = [_OpenFile(item, self.columns)]
        return self._open[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": []}


class _OpenFile:
    """A Parquet file being read: a span goes on where the one before it ended.

    No row can be skipped without decoding it, so many spans of one row group would decode it many times.
    """

    def __init__(self, item: InputFile, columns: tuple[str, ...] | None) -> None:
        import pyarrow.parquet as pq

        self.item = item
        self._raw = open_input(item.uri)
        self._file = pq.ParquetFile(self._raw, coerce_int96_timestamp_unit="us")
        # Instants of 96 bits hold years beyond those of 64 bits in nanoseconds, so both units are read.
        leaves = range(self._file.metadata.num_columns)
        physical = {self._file.schema.column(index).physical_type for index in leaves}
        self._fine = pq.ParquetFile(self._raw) if "INT96" in physical else None
        self._columns = None if columns is None else list(columns)
        names = self._file.schema_arrow.names
        missing = [name for name in columns or () if name not in names]
        if missing:
            meant = did_you_mean(missing[0], names)
            message = f"no column {missing[0]!r}; there are {', '.join(names)}{meant}"
            raise FormatError(message)
        self._ends = row_group_ends(self._file)
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: Any = None
        self._at = self._behind = self._stop = 0
        # The batch holds rows from _at to before _behind, the batches to come those to before _stop.

    @property
    def count(self) -> int:
        """Rows of the file."""
        return self._ends[-1]

    def rows(self, start: int, stop: int | None) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield batches of some rows, each with the number of its first row."""
        stop = self._ends[-1] if stop is None else stop
        while start < stop:
            self._go(start, stop)
            end = min(stop, self._behind)
            yield start, self._batch.slice(start - self._at, end - start)
            start = end

    def _go(self, row: int, stop: int) -> None:
        """Decode on to the batch that holds a row, of the row groups up to the one that holds the last row."""
        if not self._at <= row < self._stop:
            groups = row_groups(self._ends, row, stop)
            self._at = self._behind = self._ends[groups[0]]
            self._stop = self._ends[groups[-1] + 1]
            # use_threads=False: the cores belong to the other workers.
            options: Any = {"row_groups": groups, "columns": self._columns, "use_threads": False}
            self._batches = self._file.iter_batches(BATCH_ROWS, **options)
            if self._fine is not None:
                self._batches = map(exact_instants, self._batches, self._fine.iter_batches(BATCH_ROWS, **options))
        while self._behind <= row:
            self._batch = next(self._batches)
            self._at, self._behind = self._behind, self._behind + self._batch.num_rows

    def __del__(self) -> None:
        if hasattr(self, "_raw"):
            self._raw.close()


def exact_instants(coarse: pa.RecordBatch, fine: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose instants of 96 bits are in microseconds, or in nanoseconds if they need them.

    Parameters
    ----------
    coarse, fine
        The rows in microseconds, and in nanoseconds, in which Arrow changes years beyond 1677 to 2262.

    Raises
    ------
    FormatError
        If a column needs both.
    """
    import pyarrow as pa

    columns = []
    for name, one, other in zip(coarse.schema.names, coarse.columns, fine.columns, strict=True):
        needs_years, needs_nanoseconds = _needs(one, other)
        if needs_years and needs_nanoseconds:
            message = f"column {name!r} has nanoseconds and years beyond 1677 to 2262: write it in microseconds"
            raise FormatError(message)
        columns.append(other if needs_nanoseconds else one)
    return pa.RecordBatch.from_arrays(columns, names=coarse.schema.names)


def _needs(coarse: Any, fine: Any) -> tuple[bool, bool]:
    """Return whether instants have years that nanoseconds do not hold, and whether they have nanoseconds."""
    import pyarrow as pa

    if coarse.type.equals(fine.type):
        return False, False
    if not pa.types.is_timestamp(fine.type):
        parts = [array.items if pa.types.is_map(array.type) else array.flatten() for array in (coarse, fine)]
        pairs = zip(*parts, strict=True) if pa.types.is_struct(fine.type) else [parts]
        found = [_needs(*pair) for pair in pairs]
        return any(years for years, _ in found), any(nanoseconds for _, nanoseconds in found)
    years = nanoseconds = False
    ticks = (array.cast(pa.int64()).to_pylist() for array in (coarse, fine))
    for one, other in zip(*ticks, strict=True):
        if one is not None and one * 1000 != other:
            is_near = one == other // 1000
            years, nanoseconds = years or not is_near, nanoseconds or is_near
    return years, nanoseconds


def row_group_ends(file: pq.ParquetFile) -> list[int]:
    """Return 0 and the number of the row behind each row group."""
    meta = file.metadata
    return list(accumulate((meta.row_group(at).num_rows for at in range(meta.num_row_groups)), initial=0))


def row_groups(ends: list[int], start: int, stop: int | None) -> list[int]:
    """Return the numbers of the row groups that hold some rows."""
    last = len(ends) - 1 if stop is None else bisect_left(ends, stop)
    return list(range(bisect_right(ends, start) - 1, last))


def _bytes_of(group: Any) -> tuple[int, int]:
    """Return where a row group lies in its file."""
    columns = [group.column(at) for at in range(group.num_columns)]
    starts = [one.dictionary_page_offset or one.data_page_offset for one in columns]
    ends = [start + one.total_compressed_size for start, one in zip(starts, columns, strict=True)]
    return min(starts), max(ends)


def _block(span: Span, batch: pa.RecordBatch, row: int) -> Block:
    import pyarrow as pa

    first = row - span.start
    table = pa.Table.from_batches([batch])
    return Block(
        span,
        table,
        range(first, first + table.num_rows),
        first + table.num_rows,
        lambda number: (span.start + number, span.start + number + 1),
        (),
        table.nbytes,
    )


class RowGroupSplitter:
    """Cuts a range of a Parquet file into ranges of rows."""

    def __init__(self, item: InputFile, ends: list[int], gap: Range = (0, None)) -> None:
        self._input = item
        self._ends = ends
        self._start, stop = gap
        self._rows = ends[-1] if stop is None else stop
        self._row_weight = max(1e-9, item.size / max(1, ends[-1]))

    def cut(self, weight: int) -> tuple[Span, int] | None:
        """Return the next span and its weight; whole row groups where they are not much larger than it."""
        if self._start >= self._rows:
            return None
        start = self._start
        wanted = max(1, round(weight / self._row_weight))
        self._start = stop = self._stop(start, wanted)
        return Span(self._input, start, stop), max(1, round((stop - start) * self._row_weight))

    def _stop(self, start: int, wanted: int) -> int:
        """Return the end of a range of about this many rows: the nearest end of a row group, if one is near."""
        stop = start + wanted
        at = bisect_left(self._ends, stop)
        ends = self._ends[max(0, at - 1) : at + 1]
        near = [end for end in ends if self._rows >= end > start and abs(end - stop) <= wanted // 2]
        return min(near, key=lambda end: abs(end - stop), default=min(self._rows, stop))
