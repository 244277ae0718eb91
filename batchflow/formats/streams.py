"""CSV, JSON Lines and Arrow IPC: pieces are Arrow files, encoded when a part is put together.

So every row of a part has every column, whichever chunk it came from.
"""

from __future__ import annotations

import csv
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from io import BufferedWriter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchflow.errors import SchemaError
from batchflow.model import Piece
from batchflow.tables import conform, table_to_rows

if TYPE_CHECKING:
    import pyarrow as pa


class _StreamFormat(ABC):
    """A format that is written table after table."""

    piece_suffix = ".arrow"
    keeps_schema = False

    def check(self, schema: pa.Schema) -> None:
        """Refuse nothing: these formats hold every type."""
        del schema

    def write_piece(self, table: pa.Table, path: str) -> None:
        """Write the rows of a chunk as an Arrow IPC file."""
        import pyarrow as pa

        with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    def assemble(self, pieces: Sequence[Piece], schema: pa.Schema, path: str) -> None:
        """Encode pieces, in order, into one file."""
        with Path(path).open("wb") as part:
            with self._writer(part, schema) as writer:
                for table in _tables(pieces, schema):
                    writer.write_table(table)
            part.flush()
            os.fsync(part.fileno())

    def restate(self, part: str, schema: pa.Schema, path: str) -> None:
        """Write a finished part once more with another schema."""
        self.assemble([Piece(part, 0, 0, schema)], schema, path)

    @abstractmethod
    def _writer(self, part: BufferedWriter, schema: pa.Schema) -> AbstractContextManager[Any]:
        """Return what writes tables of a schema into a file."""


def _tables(pieces: Sequence[Piece], schema: pa.Schema) -> Iterator[pa.Table]:
    import pyarrow as pa

    for piece in pieces:
        with pa.memory_map(piece.path) as source:
            yield conform(pa.ipc.open_file(source).read_all(), schema)


class ArrowFormat(_StreamFormat):
    """Arrow IPC files (also known as Feather version 2)."""

    suffix = ".arrow"
    keeps_schema = True

    def _writer(self, part: BufferedWriter, schema: pa.Schema) -> AbstractContextManager[Any]:
        import pyarrow as pa

        return pa.ipc.new_file(
            pa.PythonFile(part), schema, options=pa.ipc.IpcWriteOptions(unify_dictionaries=True)
        )


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

    def restate(self, part: str, schema: pa.Schema, path: str) -> None:
        """Write a part once more with the columns that only later parts brought, empty here."""
        with Path(part).open(newline="", encoding="utf-8") as old, Path(path).open("wb") as new:
            rows = csv.reader(old)
            have = next(rows, [])
            text = io.TextIOWrapper(new, encoding="utf-8", newline="", write_through=True)
            writer = csv.writer(text, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
            writer.writerow(schema.names)
            for row in rows:
                cells = dict(zip(have, row, strict=True))
                writer.writerow([cells.get(name, "") for name in schema.names])
            text.flush()
            os.fsync(new.fileno())

    def _writer(self, part: BufferedWriter, schema: pa.Schema) -> AbstractContextManager[Any]:
        import pyarrow.csv as pacsv

        return pacsv.CSVWriter(part, schema)


class JsonFormat(_StreamFormat):
    """JSON Lines files; dates and times as ISO 8601, bytes as base 64."""

    suffix = ".jsonl"

    def _writer(self, part: BufferedWriter, schema: pa.Schema) -> AbstractContextManager[Any]:
        del schema
        return _JsonWriter(part)


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
