"""Sinks: where the rows of a task go, and the assembly of pieces into a part."""

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
    """Put pieces together; of a part that failed nothing is left.

    Parameters
    ----------
    guarded
        Whether this is a worker, where work is kept to its time.
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
"""Bytes of Arrow rows that are gathered before they are written."""


class WriteError(Exception):
    """Rows that were taken over could not be written; the cause says why."""


class Sink(Protocol):
    """Where the rows of one task go."""

    schema: pa.Schema | None
    """Of the rows so far."""

    def take(self, values: Sequence[Any]) -> None:
        """Take over what a function gave back for some records; raises if it cannot be kept."""

    def fit_value(self, schema: pa.Schema | None, value: Any) -> pa.Schema | None:
        """Return a schema with that of one value; raises what `take` would raise for it."""

    def add(self, table: pa.Table) -> None:
        """Take over a table; raises `SchemaError` if it cannot be kept."""

    def close(self) -> Any:
        """Return the payload of the outcome."""

    def drop(self) -> None:
        """Forget everything."""


def make_sink(program: Program) -> Sink:
    """Return a new outlet for a task of a job."""
    if program.format == "jsonl":
        return JsonPieces(program.format, program.pieces)
    if program.format is not None:
        return PieceSink(program.format, program.pieces)
    return TableSink() if program.tables else MemorySink()


class _Fitted:
    """What all rows of a task go with so far: types, and marks of those tables that anybody asked for."""

    def __init__(self) -> None:
        self._schema: pa.Schema | None = None
        self._unmarked: list[pa.Table] = []
        """Tables of just these types. Marks are for who gives a column another one, and cost 0.1 ms a table."""

    @property
    def schema(self) -> pa.Schema | None:
        """The schema of the rows so far, with marks."""
        if self._unmarked:
            tables, self._unmarked = self._unmarked, []
            self._schema = unify(self._schema, annotated_schema(concat(tables)))
        return self._schema

    @schema.setter
    def schema(self, schema: pa.Schema | None) -> None:
        self._schema, self._unmarked = schema, []

    def fit(self, schema: pa.Schema | None, table: pa.Table, where: str = "") -> pa.Schema:
        """Return a schema with that of a table; raises `SchemaError` if they do not go together."""
        return unify(schema, annotated_schema(table), where)

    def fit_value(self, schema: pa.Schema | None, value: Any) -> pa.Schema | None:
        """Return a schema with that of one value; raises if they do not go together."""
        return self.fit(schema, values_to_table([value]), "this record")

    def fit_in(self, table: pa.Table) -> None:
        """Have a table go with the rows so far; raises `SchemaError` if it does not."""
        if table.num_columns and self._schema is not None and self._schema.equals(table.schema):
            self._unmarked.append(table)
        else:
            self.schema = self.fit(self.schema, table)


class MemorySink:
    """Rows on their way back to the driver, from which exactly the values of the function are made again."""

    def __init__(self) -> None:
        self.schema: pa.Schema | None = None
        self._segments: list[Any] = []
        self._tables: list[pa.Table] = []

    def take(self, values: Sequence[Any]) -> None:
        """Take over values: as numbers or a table if these give back the same values, or else as they are."""
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
        """Refuse an open file; any other value can be taken."""
        refuse_open_files([value])
        return schema

    def add(self, table: pa.Table) -> None:
        """Take over a table; one of another schema than the last begins a new segment."""
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
        """Forget all rows."""
        self._segments, self._tables = [], []


class TableSink(_Fitted):
    """Rows on their way back to the driver, as one table for each chunk, which must go with those of others."""

    def __init__(self) -> None:
        super().__init__()
        self._tables: list[pa.Table] = []

    def take(self, values: Sequence[Any]) -> None:
        """Take over values; raises what Arrow raises if they do not fit into a table together."""
        self.add(values_to_table(values))

    def add(self, table: pa.Table) -> None:
        """Take over a table."""
        self.fit_in(table)
        self._tables.append(table)

    def close(self) -> Any:
        """Return all rows."""
        return Rows([concat(self._tables)] if self._tables else [])

    def drop(self) -> None:
        """Forget all rows."""
        self._tables, self._unmarked = [], []


class PieceSink(TableSink):
    """Rows on their way to disk, as one or some pieces of one chunk."""

    def __init__(self, format_name: str, folder: str) -> None:
        super().__init__()
        self._format = format_of(format_name)
        self._folder = folder
        self._held = 0
        self._pieces: list[Piece] = []

    def fit(self, schema: pa.Schema | None, table: pa.Table, where: str = "") -> pa.Schema:
        """Return a schema with that of a table; raises if they, or the format, do not go together."""
        united = super().fit(schema, table, where)
        self._format.check(united)
        self._format.check_cells(table)
        return united

    def add(self, table: pa.Table) -> None:
        """Take over a table, and write what is held once it is much."""
        self._format.check_cells(table)
        super().add(table)
        self._held += table.nbytes
        if self._held > PIECE_BYTES:
            self._write()

    def _write(self) -> None:
        """Write what is held; of a table without rows only the schema is worth keeping."""
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
        """Remove the pieces written so far."""
        for piece in self._pieces:
            _remove(piece.path)
        super().drop()
        self._pieces = []


class JsonPieces:
    """Records on their way to disk as JSON Lines: each is encoded by itself, with the keys that it has."""

    def __init__(self, format_name: str, folder: str) -> None:
        self._format = format_of(format_name)
        self._folder = folder
        self._known: pa.Schema | None = None
        """Of tables, and of rows that are written."""
        self._columns: dict[str, Any] = {}
        """Shapes of the columns of records that are not yet written."""
        self._blocks: list[bytes] = []
        self._rows = self._held = 0
        self._pieces: list[Piece] = []

    @property
    def schema(self) -> pa.Schema | None:
        """What is known of the lines so far, for those who read them back."""
        from batchflow.io.formats.json_lines import schema_of, unite

        return unite(self._known, schema_of(self._columns)) if self._columns else self._known

    @schema.setter
    def schema(self, schema: pa.Schema | None) -> None:
        self._known, self._columns = schema, {}

    def take(self, values: Sequence[Any]) -> None:
        """Take over values; raises if JSON has no form for one of them."""
        from batchflow.io.formats.json_lines import encode_rows, merged_columns

        text, columns = encode_rows(values)
        self._columns = merged_columns(self._columns, columns)
        self._hold(text, len(values))

    def fit_value(self, schema: pa.Schema | None, value: Any) -> pa.Schema | None:
        """Return the schema as it is: no record depends on another; raises if JSON has no form for a value."""
        from batchflow.io.formats.json_lines import encode_rows

        encode_rows([value])
        return schema

    def add(self, table: pa.Table) -> None:
        """Take over a table; raises `SchemaError` if JSON has no form for a value."""
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
        """Remove the pieces written so far."""
        for piece in self._pieces:
            _remove(piece.path)
        self._blocks, self._rows, self._held, self._pieces = [], 0, 0, []


def _with_columns(table: pa.Table) -> pa.Table:
    """Return a table that a file can hold: rows without columns are counted by a column of nulls."""
    import pyarrow as pa

    return table if table.num_columns else pa.table({VALUE: pa.nulls(table.num_rows)})


def schema_or_none(schema: pa.Schema | None) -> pa.Schema:
    """Return a schema, an empty one for rows without any column."""
    import pyarrow as pa

    return pa.schema([]) if schema is None else schema


class _Written(NamedTuple):
    path: str
    size: int
    checksum: str


def _written(folder: str, form: Format, write: Callable[[str], object]) -> _Written:
    """Write a piece; raises `WriteError` if that cannot be."""
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
    """Remove a piece that is no use, to make room; of a store they all go in the end."""
    if not is_uri(path):
        with suppress(OSError):
            os.unlink(path)
