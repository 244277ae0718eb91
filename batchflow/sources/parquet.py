"""Parquet files: cut by row groups, and inside a large row group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from batchflow.model import Input, Span
from batchflow.sources.base import Block, FileSource
from batchflow.sources.cutting import Cuts, whole
from batchflow.sources.paths import open_input

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

BATCH_ROWS = 8192
"""Rows decoded at a time."""


@dataclass(frozen=True)
class ParquetSource(FileSource):
    """Parquet files; a record is a row as a dict."""

    kind: ClassVar[str] = "parquet"
    columns: tuple[str, ...] | None = None

    def cuttable(self, item: Input) -> bool:
        """Whether a file can be cut: always, whatever its columns are compressed with."""
        return True

    def cuts(self, item: Input) -> Cuts:
        """Return a function that cuts ranges of rows, at the ends of row groups where it can."""
        import pyarrow.parquet as pq

        try:
            with closing(open_input(item.uri)) as raw, pq.ParquetFile(raw) as file:
                meta = file.metadata
                groups = [meta.row_group(at).num_rows for at in range(meta.num_row_groups)]
        except Exception:  # noqa: BLE001 - the worker that reads the file tells what is wrong with it
            return whole(item)
        return RowCuts(item, groups).cut

    def record_weight(self, inputs: Sequence[Input]) -> float:
        """Return the bytes on disk of a row of the first file that has any."""
        import pyarrow.parquet as pq

        for item in inputs:
            try:
                with closing(open_input(item.uri)) as raw, pq.ParquetFile(raw) as file:
                    rows = int(file.metadata.num_rows)
            except Exception:  # noqa: BLE001 - the worker that reads the file tells what is wrong with it
                continue
            if rows:
                return item.size / rows
        return 1.0

    def blocks(self, span: Span, data: Any) -> Iterator[Block]:
        """Read the rows of one span as tables."""
        del data
        import pyarrow.parquet as pq

        with closing(open_input(span.input.uri)) as raw, pq.ParquetFile(raw) as file:
            self._check_columns(file)
            yield from self._rows(span, file)

    def _check_columns(self, file: pq.ParquetFile) -> None:
        missing = [name for name in self.columns or () if name not in file.schema_arrow.names]
        if missing:
            message = f"no column {missing[0]!r}; there are {', '.join(file.schema_arrow.names)}"
            raise KeyError(message)

    def _rows(self, span: Span, file: pq.ParquetFile) -> Iterator[Block]:
        first, groups = _groups(file, span)
        at = first
        stop = span.stop if span.stop is not None else file.metadata.num_rows
        # use_threads=False: the cores belong to the other workers.
        columns = None if self.columns is None else list(self.columns)
        batches = file.iter_batches(BATCH_ROWS, row_groups=groups, columns=columns, use_threads=False)
        for batch in batches:
            low, high = max(0, span.start - at), min(batch.num_rows, stop - at)
            if low < high:
                yield _block(span, batch.slice(low, high - low), at + low)
            at += batch.num_rows
            if at >= stop:
                return


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


def _groups(file: pq.ParquetFile, span: Span) -> tuple[int, list[int]]:
    """Return the row groups that a span touches, and the number of the first row in them."""
    touched: list[int] = []
    first = row = 0
    for at in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(at).num_rows
        if row + rows > span.start and (span.stop is None or row < span.stop):
            if not touched:
                first = row
            touched.append(at)
        row += rows
    return first, touched


class RowCuts:
    """Cuts a Parquet file into ranges of rows."""

    def __init__(self, item: Input, groups: list[int]) -> None:
        self._input = item
        self._groups = groups
        self._rows = sum(groups)
        self._start = 0
        self._row_weight = max(1e-9, item.size / max(1, self._rows))

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
        row = 0
        best = min(self._rows, start + wanted)
        for rows in self._groups:
            row += rows
            if row > start and abs(row - (start + wanted)) <= wanted // 2:
                return row
        return best
