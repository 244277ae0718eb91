"""CSV, JSON Lines and Arrow IPC: pieces are Arrow files, encoded when a part is put together.

So every row of a part has every column, whichever chunk it came from.
"""

from __future__ import annotations

import csv
import io
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from io import BufferedWriter
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchflow.errors import SchemaError
from batchflow.model import Piece, Slice
from batchflow.schemas import conform
from batchflow.tables import table_to_rows

if TYPE_CHECKING:
    import pyarrow as pa


@contextmanager
def any_field_size() -> Iterator[None]:
    """Lift the limit of the `csv` module on the size of a cell, which is one for the whole process."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


class _StreamFormat(ABC):
    """A format that is written table after table."""

    piece_suffix = ".piece"
    keeps_schema = False

    def check(self, schema: pa.Schema) -> None:
        """Refuse nothing: these formats hold every type."""
        del schema

    def write_piece(self, table: pa.Table, path: str) -> None:
        """Write the rows of a chunk as an Arrow IPC file."""
        import pyarrow as pa

        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    def assemble(self, pieces: Sequence[Piece | Slice], schema: pa.Schema, path: str) -> None:
        """Encode pieces, and copy rows of finished parts, in order, into one file."""
        with Path(path).open("wb") as part:
            with self._writer(part, schema) as writer, ExitStack() as stack:
                sources = _Sources(schema, stack)
                for piece in pieces:
                    if isinstance(piece, Piece):
                        writer.write_table(_table(piece.path, schema))
                    elif piece.of_piece:
                        writer.write_table(sources.table(piece))
                    else:
                        self._copy(piece, schema, part, writer, sources)
            part.flush()
            os.fsync(part.fileno())

    @abstractmethod
    def _writer(self, part: BufferedWriter, schema: pa.Schema) -> AbstractContextManager[Any]:
        """Return what writes tables of a schema into a file."""

    @abstractmethod
    def _copy(
        self, rows: Slice, schema: pa.Schema, part: BufferedWriter, writer: Any, sources: _Sources
    ) -> None:
        """Write rows of a finished part, behind what is in the file."""


class _Sources:
    """Files of which slices are taken: slices in order read each file once."""

    def __init__(self, schema: pa.Schema, stack: ExitStack) -> None:
        self._schema = schema
        self._stack = stack
        self._tables: dict[str, pa.Table] = {}
        self._rows: dict[str, tuple[Iterator[Any], int]] = {}

    def table(self, rows: Slice) -> pa.Table:
        """Return a slice of an Arrow file."""
        table = self._tables.pop(rows.path, None)
        if table is None:
            table = _table(rows.path, self._schema)
            for path in list(self._tables)[:-1]:  # slices of a part take turns with those of one piece
                del self._tables[path]
        self._tables[rows.path] = table
        return table.slice(rows.start, None if rows.stop is None else rows.stop - rows.start)

    def lines(self, rows: Slice, read: Callable[[Any], Iterator[Any]], **how: Any) -> Iterator[Any]:
        """Return an iterator over a slice of a text file; it must be consumed before the next one."""
        lines, at = self._rows.get(rows.path, (iter(()), sys.maxsize))
        if at > rows.start:
            file = self._stack.enter_context(Path(rows.path).open(**how))  # noqa: SIM115 - the stack closes it
            lines, at = read(file), 0
        self._rows[rows.path] = lines, sys.maxsize if rows.stop is None else rows.stop
        return islice(lines, rows.start - at, None if rows.stop is None else rows.stop - at)


def _table(path: str, schema: pa.Schema) -> pa.Table:
    """Return the rows of an Arrow IPC file with a schema that holds them."""
    import pyarrow as pa

    with pa.memory_map(path) as source:
        return conform(pa.ipc.open_file(source).read_all(), schema)


class ArrowFormat(_StreamFormat):
    """Arrow IPC files (also known as Feather version 2)."""

    suffix = ".arrow"
    keeps_schema = True

    def _writer(self, part: BufferedWriter, schema: pa.Schema) -> AbstractContextManager[Any]:
        import pyarrow as pa

        return pa.ipc.new_file(
            pa.PythonFile(part), schema, options=pa.ipc.IpcWriteOptions(unify_dictionaries=True)
        )

    def _copy(
        self, rows: Slice, schema: pa.Schema, part: BufferedWriter, writer: Any, sources: _Sources
    ) -> None:
        del schema, part
        writer.write_table(sources.table(rows))


class CsvFormat(_StreamFormat):
    """CSV files with a header; nulls are empty cells."""

    suffix = ".csv"
    keeps_schema = True

    def check(self, schema: pa.Schema) -> None:
        """Refuse columns whose cells are no single value."""
        import pyarrow as pa

        for field in schema:
            if pa.types.is_nested(field.type) or isinstance(field.type, pa.BaseExtensionType):
                message = (
                    f"column {field.name!r} is {field.type}, which a CSV cell cannot hold: "
                    "use format='jsonl' or 'parquet', or flatten it"
                )
                raise SchemaError(message)

    def _copy(
        self, rows: Slice, schema: pa.Schema, part: BufferedWriter, writer: Any, sources: _Sources
    ) -> None:
        """Copy rows as text; the columns that only later parts brought are empty."""
        del writer
        with any_field_size():
            text = io.TextIOWrapper(part, encoding="utf-8", newline="", write_through=True)
            copy = csv.writer(text, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
            quoted = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
            for have, row in sources.lines(rows, _with_header, newline="", encoding="utf-8"):
                named = dict(zip(have, row or [""], strict=True))  # a lone empty cell is a blank line
                new = [named.get(name, "") for name in schema.names]
                (quoted if "\r" in "".join(new) else copy).writerow(new)  # which ends a line too, for a reader
            text.detach()

    def _writer(self, part: BufferedWriter, schema: pa.Schema) -> AbstractContextManager[Any]:
        import pyarrow.csv as pacsv

        return pacsv.CSVWriter(part, schema)


def _with_header(file: Iterable[str]) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the rows of a CSV file, each with the header."""
    rows = csv.reader(file)
    header = next(rows, [])
    return ((header, row) for row in rows)


class JsonFormat(_StreamFormat):
    """JSON Lines files; dates and times as ISO 8601, bytes as base 64."""

    suffix = ".jsonl"

    def _writer(self, part: BufferedWriter, schema: pa.Schema) -> AbstractContextManager[Any]:
        del schema
        return _JsonWriter(part)

    def _copy(
        self, rows: Slice, schema: pa.Schema, part: BufferedWriter, writer: Any, sources: _Sources
    ) -> None:
        """Copy lines as they are: a key that later parts brought is absent."""
        del schema, writer
        part.writelines(sources.lines(rows, iter, mode="rb"))


def _plain(value: Any) -> Any:
    """Return what JSON takes for a value of a type that msgspec does not know: pandas' times, say."""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


class _JsonWriter(AbstractContextManager["_JsonWriter"]):
    def __init__(self, part: BufferedWriter) -> None:
        import msgspec

        self._part = part
        self._encode = msgspec.json.Encoder(enc_hook=_plain).encode_lines

    def write_table(self, table: pa.Table) -> None:
        """Write a line for each row, some thousand at a time."""
        for batch in table.to_batches(max_chunksize=8192):
            self._part.write(self._encode(table_to_rows(batch)))

    def __exit__(self, *_: object) -> None:
        self._part.flush()
