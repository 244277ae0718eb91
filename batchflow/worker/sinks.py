"""Sinks for the rows of a task, and the assembly of pieces into parts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from batchflow.core.chunks import Piece
from batchflow.core.outcomes import Outcome, Stats, Succeeded
from batchflow.core.work import AssemblePart
from batchflow.io.arrow.convert import VALUE, exact_table, is_tabular, refuse_open_files, values_to_table
from batchflow.io.arrow.precision import annotated_schema
from batchflow.io.arrow.rows import Rows, as_numbers
from batchflow.io.arrow.schema import concat, plain, unify
from batchflow.io.formats.base import Format, digest, format_of
from batchflow.io.stores import is_uri
from batchflow.io.stores.staging import downloaded, upload_on_exit
from batchflow.worker.failures import failed, over, worker_name
from batchflow.worker.limits import TaskLimits, TaskTimeout
from batchflow.worker.program import Limits, Program

if TYPE_CHECKING:
    import pyarrow as pa


def assembled(work: AssemblePart, *, guarded: bool) -> Outcome:
    """Assemble pieces into a part; nothing is left of a part that failed.

    Parameters
    ----------
    guarded
        Whether this process is a worker, which enforces limits.
    """
    limits = Limits(work.seconds)
    began = time.time()
    try:
        guard = TaskLimits(*limits) if guarded else nullcontext()
        with guard, downloaded(work.pieces) as pieces, upload_on_exit(work.path) as path:
            format_of(work.format).assemble(pieces, work.schema, path)
            written = os.stat(path).st_size, digest(path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(work.path)
        if isinstance(error, TaskTimeout | MemoryError):
            return over(work, error, limits)
        if isinstance(error, KeyboardInterrupt):
            raise
        return failed(work, "write", error)
    return Succeeded(work.key, Stats(worker_name(), began, time.time() - began), (), written)


PIECE_BYTES = 64_000_000
"""Bytes of Arrow rows to buffer before a write."""


class WriteError(Exception):
    """Failed write of accepted rows; the cause is the original error."""


class Sink(Protocol):
    """Destination of the rows of one task."""

    schema: pa.Schema | None
    """Schema of the rows so far."""

    def take(self, values: Sequence[Any]) -> None:
        """Accept the results of some records; raises if they cannot be stored."""

    def fit_value(self, schema: pa.Schema | None, value: Any) -> pa.Schema | None:
        """Return a schema extended by that of one value; raises what `take` would raise for it."""

    def add(self, table: pa.Table) -> None:
        """Accept a table; raises `SchemaError` if it cannot be stored."""

    def close(self) -> Any:
        """Return the payload of the outcome."""

    def drop(self) -> None:
        """Discard everything."""


def make_sink(program: Program) -> Sink:
    """Return a new sink for a task of a job."""
    if program.format == "jsonl":
        return JsonPieces(program.format, program.pieces)
    if program.format is not None:
        return PieceSink(program.format, program.pieces)
    return TableSink() if program.tables else MemorySink()


class _Fitted:
    """Common schema of a task's rows: types, with annotations computed only if needed."""

    def __init__(self) -> None:
        self._schema: pa.Schema | None = None
        self._unmarked: list[pa.Table] = []
        """Tables with exactly these types. Annotations matter only if a type changes, and cost 0.1 ms a table."""

    @property
    def schema(self) -> pa.Schema | None:
        """Annotated schema of the rows so far."""
        if self._unmarked:
            tables, self._unmarked = self._unmarked, []
            self._schema = unify(self._schema, annotated_schema(concat(tables)))
        return self._schema

    @schema.setter
    def schema(self, schema: pa.Schema | None) -> None:
        self._schema, self._unmarked = schema, []

    def fit(self, schema: pa.Schema | None, table: pa.Table, where: str = "") -> pa.Schema:
        """Return a schema extended by that of a table; raises `SchemaError` if they are incompatible."""
        return unify(schema, annotated_schema(table), where)

    def fit_value(self, schema: pa.Schema | None, value: Any) -> pa.Schema | None:
        """Return a schema extended by that of one value; raises if they are incompatible."""
        return self.fit(schema, values_to_table([value]), "this record")

    def fit_in(self, table: pa.Table) -> None:
        """Add the schema of a table; raises `SchemaError` if it is incompatible."""
        if table.num_columns and self._schema is not None and self._schema.equals(table.schema):
            self._unmarked.append(table)
        else:
            self.schema = self.fit(self.schema, table)


class MemorySink:
    """Sink for rows returned to the driver, which restores exactly the values of the function."""

    def __init__(self) -> None:
        self.schema: pa.Schema | None = None
        self._segments: list[Any] = []
        self._tables: list[pa.Table] = []

    def take(self, values: Sequence[Any]) -> None:
        """Accept values: as numbers or a table if these restore the same values, or else unchanged."""
        segment: Any = as_numbers(values)
        if segment is None:
            segment = exact_table(values)
        if is_tabular(segment):
            self.add(segment)
            return
        if segment is None:
            refuse_open_files(values)
            segment = list(values)
        self._join()
        last = self._segments[-1] if self._segments else None
        if type(last) is type(segment) and getattr(last, "typecode", "") == getattr(segment, "typecode", ""):
            self._segments[-1].extend(segment)
        else:
            self._segments.append(segment)

    def fit_value(self, schema: pa.Schema | None, value: Any) -> pa.Schema | None:
        """Refuse an open file; any other value is accepted."""
        refuse_open_files([value])
        return schema

    def add(self, table: pa.Table) -> None:
        """Accept a table; a schema change starts a new segment."""
        if self._tables and not self._tables[-1].schema.equals(table.schema):
            self._join()
        self._tables.append(table)

    def _join(self) -> None:
        if self._tables:
            joined = concat(self._tables)
            self._segments.append(joined.combine_chunks() if len(self._tables) > 1 else joined)
            self._tables = []

    def close(self) -> Rows:
        """Return all rows."""
        self._join()
        return Rows(self._segments)

    def drop(self) -> None:
        """Discard all rows."""
        self._segments, self._tables = [], []


class TableSink(_Fitted):
    """Sink for rows returned to the driver as one table per chunk, with a schema common to all chunks."""

    def __init__(self) -> None:
        super().__init__()
        self._tables: list[pa.Table] = []

    def take(self, values: Sequence[Any]) -> None:
        """Accept values; raises the error of Arrow if they do not fit into one table."""
        self.add(values_to_table(values))

    def add(self, table: pa.Table) -> None:
        """Accept a table."""
        self.fit_in(table)
        self._tables.append(table)

    def close(self) -> Any:
        """Return all rows."""
        return Rows([concat(self._tables)] if self._tables else [])

    def drop(self) -> None:
        """Discard all rows."""
        self._tables, self._unmarked = [], []


class PieceSink(TableSink):
    """Sink for rows written to disk, as one or more pieces of one chunk."""

    def __init__(self, format_name: str, folder: str) -> None:
        super().__init__()
        self._format = format_of(format_name)
        self._folder = folder
        self._held = 0
        self._pieces: list[Piece] = []

    def fit(self, schema: pa.Schema | None, table: pa.Table, where: str = "") -> pa.Schema:
        """Return a schema extended by that of a table; raises if the table or the format is incompatible."""
        united = super().fit(schema, table, where)
        self._format.check(united)
        self._format.check_cells(table)
        return united

    def add(self, table: pa.Table) -> None:
        """Accept a table, and write the buffer if it is full."""
        self._format.check_cells(table)
        super().add(table)
        self._held += table.nbytes
        if self._held > PIECE_BYTES:
            self._write()

    def _write(self) -> None:
        """Write the buffered rows; a table without rows contributes only its schema."""
        table = plain(concat(self._tables))
        schema = annotated_schema(table)
        if self._unmarked:
            self.schema = unify(self._schema, schema)
        self._tables, self._held = [], 0
        if table.num_rows:
            rows = _with_columns(table).combine_chunks()
            written = _written(self._folder, self._format, lambda file: self._format.write_piece(rows, file))
            self._pieces.append(Piece(written.path, table.num_rows, written.size, schema, written.checksum))
        elif table.num_columns:
            self._pieces.append(Piece("", 0, 0, schema))

    def close(self) -> list[Piece]:
        """Write the rest and return all pieces."""
        self._write()
        return self._pieces

    def drop(self) -> None:
        """Delete the pieces written so far."""
        for piece in self._pieces:
            _remove(piece.path)
        super().drop()
        self._pieces = []


class JsonPieces:
    """Sink for JSON Lines on disk: each record is encoded by itself, with its own keys."""

    def __init__(self, format_name: str, folder: str) -> None:
        self._format = format_of(format_name)
        self._folder = folder
        self._known: pa.Schema | None = None
        """Schema of tables and of rows already written."""
        self._columns: dict[str, Any] = {}
        """Column shapes of records not yet written."""
        self._blocks: list[bytes] = []
        self._rows = self._held = 0
        self._pieces: list[Piece] = []

    @property
    def schema(self) -> pa.Schema | None:
        """Schema of the lines so far, for readers of the output."""
        from batchflow.io.formats.json_lines import schema_of, unite

        return unite(self._known, schema_of(self._columns)) if self._columns else self._known

    @schema.setter
    def schema(self, schema: pa.Schema | None) -> None:
        self._known, self._columns = schema, {}

    def take(self, values: Sequence[Any]) -> None:
        """Accept values; raises if JSON cannot represent one of them."""
        from batchflow.io.formats.json_lines import encode_rows, merged_columns

        text, columns = encode_rows(values)
        self._columns = merged_columns(self._columns, columns)
        self._hold(text, len(values))

    def fit_value(self, schema: pa.Schema | None, value: Any) -> pa.Schema | None:
        """Return the schema unchanged, as records are independent; raises if JSON cannot represent a value."""
        from batchflow.io.formats.json_lines import encode_rows

        encode_rows([value])
        return schema

    def add(self, table: pa.Table) -> None:
        """Accept a table; raises `SchemaError` if JSON cannot represent a value."""
        from batchflow.io.formats.json_lines import encode_table

        table = plain(table)
        text = encode_table(table)
        self._known = self._format.unite(self._known, annotated_schema(table))
        self._hold(text, table.num_rows)

    def _hold(self, text: bytes, rows: int) -> None:
        self._blocks.append(text)
        self._rows += rows
        self._held += len(text)
        if self._held > PIECE_BYTES:
            self._write()

    def _write(self) -> None:
        schema = self.schema
        blocks, rows = self._blocks, self._rows
        self._known, self._columns = schema, {}
        self._blocks, self._rows, self._held = [], 0, 0
        if rows:
            written = _written(self._folder, self._format, lambda file: _write_blocks(blocks, file))
            noted = schema_or_none(schema)
            self._pieces.append(Piece(written.path, rows, written.size, noted, written.checksum))
        elif schema is not None and schema.names and not self._pieces:
            self._pieces.append(Piece("", 0, 0, schema))

    def close(self) -> list[Piece]:
        """Write the rest and return all pieces."""
        self._write()
        return self._pieces

    def drop(self) -> None:
        """Delete the pieces written so far."""
        for piece in self._pieces:
            _remove(piece.path)
        self._blocks, self._rows, self._held, self._pieces = [], 0, 0, []


def _with_columns(table: pa.Table) -> pa.Table:
    """Return a table that a file can store: rows without columns get a column of nulls."""
    import pyarrow as pa

    return table if table.num_columns else pa.table({VALUE: pa.nulls(table.num_rows)})


def schema_or_none(schema: pa.Schema | None) -> pa.Schema:
    """Return a schema; an empty one for rows without columns."""
    import pyarrow as pa

    return pa.schema([]) if schema is None else schema


class _Written(NamedTuple):
    path: str
    size: int
    checksum: str


def _written(folder: str, form: Format, write: Callable[[str], object]) -> _Written:
    """Write a piece; raises `WriteError` if the write fails."""
    path = f"{folder}/{os.urandom(16).hex()}{form.piece_suffix}"
    try:
        with upload_on_exit(path) as file:
            write(file)
            return _Written(path, os.stat(file).st_size, digest(file))
    except BaseException as error:
        _remove(path)
        if isinstance(error, Exception | SystemExit) and not isinstance(error, MemoryError):
            raise WriteError from error
        raise


def _write_blocks(blocks: Sequence[bytes], path: str) -> None:
    with open(path, "wb") as file:
        file.writelines(blocks)


def _remove(path: str) -> None:
    """Delete an unused local piece to free space; pieces in an object store are deleted at the end of the run."""
    if not is_uri(path):
        with suppress(OSError):
            os.unlink(path)
