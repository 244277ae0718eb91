"""CSV, JSON Lines and Arrow IPC.

Pieces of CSV and IPC are Arrow files, encoded when a part is assembled: every row of a part has every
column, whichever chunk it came from. Pieces of JSON Lines are lines.
"""

from __future__ import annotations

import csv
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from io import BufferedWriter
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from batchflow.core.chunks import Piece, Slice
from batchflow.errors import SchemaError
from batchflow.io.arrow.schema import conform, unify

if TYPE_CHECKING:
    import pyarrow as pa


_COPY_BYTES = 1 << 20


@contextmanager
def any_field_size() -> Iterator[None]:
    """Lift the limit of the `csv` module on the size of a cell, which is one for the whole process."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


class _Columns:
    """What formats with columns have in common."""

    keeps_schema = False

    def check(self, schema: pa.Schema) -> None:
        """Refuse nothing: these formats hold every type."""
        del schema

    def check_cells(self, table: pa.Table) -> None:
        """Refuse nothing: these formats hold each value of their types."""
        del table

    def unite(self, known: pa.Schema | None, schema: pa.Schema, where: str = "") -> pa.Schema:
        """Return the schema that holds both without loss."""
        return unify(known, schema, where)


class _StreamFormat(_Columns, ABC):
    """A format that is written table after table."""

    piece_suffix = ".piece"

    def write_piece(self, table: pa.Table, path: str) -> None:
        """Write the rows of a chunk as an Arrow IPC file."""
        import pyarrow as pa

        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    def assemble(self, pieces: Sequence[Piece | Slice], schema: pa.Schema, path: str) -> None:
        """Encode pieces, and copy rows of finished parts, in order, into one file."""
        with Path(path).open("wb") as part:
            with self._writer(part, schema, pieces) as writer, ExitStack() as stack:
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
    def _writer(
        self, part: BufferedWriter, schema: pa.Schema, pieces: Sequence[Piece | Slice]
    ) -> AbstractContextManager[Any]:
        """Return what writes tables of a schema, the rows of some pieces, into a file."""

    @abstractmethod
    def _copy(self, rows: Slice, schema: pa.Schema, part: BufferedWriter, writer: Any, sources: _Sources) -> None:
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

    def _writer(
        self, part: BufferedWriter, schema: pa.Schema, pieces: Sequence[Piece | Slice]
    ) -> AbstractContextManager[Any]:
        import pyarrow as pa

        return _OneDictionary(pa.ipc.new_file(pa.PythonFile(part), schema), _dictionaries(pieces, schema))

    def _copy(self, rows: Slice, schema: pa.Schema, part: BufferedWriter, writer: Any, sources: _Sources) -> None:
        del schema, part
        writer.write_table(sources.table(rows))


def _dictionaries(pieces: Sequence[Piece | Slice], schema: pa.Schema) -> dict[str, Any]:
    """Return the values of the columns that are dictionaries in some pieces, by name, in order of appearance."""
    import pyarrow as pa

    encoded = pa.schema([field for field in schema if pa.types.is_dictionary(field.type)])
    values = {field.name: pa.array([], field.type.value_type) for field in encoded}
    if encoded.names:
        for path in dict.fromkeys(piece.path for piece in pieces):
            columns: Any = _table(path, encoded).columns
            for name, column in zip(encoded.names, columns, strict=True):
                known = [values[name], *(chunk.dictionary for chunk in column.chunks)]
                values[name] = pa.chunked_array(known).unique()
    return values


class _OneDictionary:
    """Writes an Arrow file, in which a column has one dictionary."""

    def __init__(self, writer: Any, values: dict[str, Any]) -> None:
        self._writer = writer
        self._values = values

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write_table(self, table: pa.Table) -> None:
        """Write rows."""
        import pyarrow as pa

        for name, values in self._values.items():
            index = table.schema.get_field_index(name)
            field = table.schema.field(index)
            chunks = [_encoded(chunk, values) for chunk in table.column(index).chunks]
            table = table.set_column(index, field, pa.chunked_array(chunks, field.type))
        self._writer.write_table(table)


def _encoded(array: Any, values: Any) -> Any:
    """Return an array whose dictionary is one that holds all of its values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    places = pc.index_in(array.dictionary, value_set=values).take(array.indices)
    return pa.DictionaryArray.from_arrays(places, values, ordered=array.type.ordered)


class CsvFormat(_StreamFormat):
    """CSV files with a header; nulls are empty cells."""

    suffix = ".csv"
    keeps_schema = True

    def check(self, schema: pa.Schema) -> None:
        """Refuse columns whose cells are no single value."""
        import pyarrow as pa

        for field in schema:
            is_extension = isinstance(field.type, pa.BaseExtensionType)
            if pa.types.is_nested(field.type) or is_extension:
                cure = "return text" if is_extension else "flatten it"
                message = (
                    f"column {field.name!r} is {field.type}, which a CSV cell cannot hold: "
                    f"use format='jsonl' or 'parquet', or {cure}"
                )
                raise SchemaError(message)

    def check_cells(self, table: pa.Table) -> None:
        """Refuse bytes that are no text, and times that no calendar of four-digit years has."""
        import pyarrow as pa

        for field, column in zip(table.schema, table.columns, strict=True):
            kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            if problem := _unwritable(column, kind):
                message = f"column {field.name!r}: {problem}, which a CSV cell cannot hold: use format='parquet'"
                raise SchemaError(message)

    def _copy(self, rows: Slice, schema: pa.Schema, part: BufferedWriter, writer: Any, sources: _Sources) -> None:
        """Copy rows as they are written; the columns that only later parts brought are empty."""
        del writer
        with any_field_size():
            for have, text in sources.lines(rows, _with_header, newline="", encoding="utf-8"):
                if have != schema.names[: len(have)]:
                    message = f"the columns of {rows.path} are {have}, and not the first of {schema.names}"
                    raise SchemaError(message)
                missing = "," * (len(schema.names) - len(have))
                part.write(f"{text}{missing}\n".encode())

    def _writer(
        self, part: BufferedWriter, schema: pa.Schema, pieces: Sequence[Piece | Slice]
    ) -> AbstractContextManager[Any]:
        import pyarrow.csv as pacsv

        del pieces
        writer = pacsv.CSVWriter(part, schema)
        return _OneColumn(writer, part) if len(schema.names) == 1 else writer


def _with_header(file: Iterable[str]) -> Iterator[tuple[list[str], str]]:
    """Yield the text of each row of a CSV file, without its line feed, and the header."""
    seen: list[str] = []

    def lines() -> Iterator[str]:
        for line in file:
            seen.append(line)
            yield line

    rows = csv.reader(lines())
    header = next(rows, [])
    seen.clear()
    for _ in rows:
        text = "".join(seen).removesuffix("\n")
        seen.clear()
        yield header, text


class _OneColumn:
    """Writes CSV of one column: nulls are quoted, since an empty line is no record for most readers."""

    def __init__(self, writer: Any, part: BufferedWriter) -> None:
        self._writer = writer
        self._part = part

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def write_table(self, table: pa.Table) -> None:
        """Write rows, those with a value by Arrow."""
        column = table.column(0)
        if not column.null_count:
            self._writer.write_table(table)
            return
        start = 0
        for is_null, run in groupby(column.is_null().to_pylist()):
            count = sum(1 for _ in run)
            if is_null:
                self._part.write(b'""\n' * count)
            else:
                self._writer.write_table(table.slice(start, count))
            start += count


_DAY = 86_400
_FIRST, _LAST = -62_135_596_800, 253_402_300_799
"""Seconds since 1970 of the first day of year 1 and the last second of year 9999."""
_PARTS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def _unwritable(column: Any, kind: Any) -> str | None:
    """Return what a column holds that CSV has no text for, ``None`` if there is nothing."""
    import pyarrow as pa

    types = pa.types
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        try:
            column.cast(pa.binary()).cast(pa.string())
        except pa.ArrowInvalid:
            return "bytes that are not UTF-8"
        return None
    if not (types.is_timestamp(kind) or types.is_date(kind) or types.is_time(kind)):
        return None
    parts = _PARTS[kind.unit] if hasattr(kind, "unit") else 1_000
    numbers = pa.chunked_array(
        [chunk.cast(kind).view(pa.int32() if kind.bit_width == 32 else pa.int64()) for chunk in column.chunks]
    ).to_pylist()
    known = [number for number in numbers if number is not None]
    if not known:
        return None
    low, high = (0, _DAY - 1) if types.is_time(kind) else (_FIRST, _LAST)
    if types.is_date32(kind):
        low, high, parts = low // _DAY, high // _DAY, 1
    if low * parts <= min(known) and max(known) < (high + 1) * parts:
        return None
    return "a time beyond 24 hours" if types.is_time(kind) else "a time before the year 1 or after 9999"


class JsonFormat(_Columns):
    """JSON Lines files: each record is encoded by itself, so no line depends on another.

    Dates, times and durations are ISO 8601, bytes base 64, decimals text.
    """

    suffix = ".jsonl"
    piece_suffix = ".piece"

    def write_piece(self, table: pa.Table, path: str) -> None:
        """Write the rows of a table as lines."""
        from batchflow.io.formats.json_lines import encode_table

        Path(path).write_bytes(encode_table(table))

    def unite(self, known: pa.Schema | None, schema: pa.Schema, where: str = "") -> pa.Schema:
        """Return what is known of both: any lines go together."""
        from batchflow.io.formats.json_lines import unite

        del where
        return unite(known, schema)

    def assemble(self, pieces: Sequence[Piece | Slice], schema: pa.Schema, path: str) -> None:
        """Copy the lines of pieces, and of finished parts, in order, into one file."""
        with Path(path).open("wb") as part, ExitStack() as stack:
            sources = _Sources(schema, stack)
            for piece in pieces:
                if isinstance(piece, Slice) and (piece.start or piece.stop is not None):
                    part.writelines(sources.lines(piece, iter, mode="rb"))
                else:
                    with Path(piece.path).open("rb") as lines:
                        shutil.copyfileobj(lines, part, _COPY_BYTES)
            part.flush()
            os.fsync(part.fileno())
