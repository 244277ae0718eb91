"""Output formats: how a worker writes the rows of a chunk, and how such pieces become one part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from batchflow.core.chunks import Piece, Slice
from batchflow.core.text import did_you_mean
from batchflow.errors import FormatError

if TYPE_CHECKING:
    import pyarrow as pa


class Format(Protocol):
    """One output format."""

    suffix: str
    """Of finished parts, with its dot."""
    piece_suffix: str
    keeps_schema: bool
    """Whether a part shows its columns and types, so that all parts should have the same."""

    def check(self, schema: pa.Schema) -> None:
        """Raise `SchemaError` if the format has no way to hold a column."""

    def check_cells(self, table: pa.Table) -> None:
        """Raise `SchemaError` if the format has no way to hold a value of a table whose columns it can hold."""

    def unite(self, known: pa.Schema | None, schema: pa.Schema, where: str = "") -> pa.Schema:
        """Return the schema of rows before and of rows now; raises `SchemaError` if they do not go together."""

    def write_piece(self, table: pa.Table, path: str) -> None:
        """Write the rows of a chunk; runs on a worker."""

    def assemble(self, pieces: Sequence[Piece | Slice], schema: pa.Schema, path: str) -> None:
        """Write pieces, and rows of finished parts, in order, as one part with one schema, synced to disk.

        Runs on a worker.
        """


def digest(path: str) -> str:
    """Return what tells a file from any other: SHA-256 of its bytes, 32 hexadecimal digits of it."""
    import hashlib  # 3 ms, which results in memory need not wait for

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


NAMES = ("parquet", "csv", "jsonl", "arrow")
_SUFFIXES = {
    "parquet": "parquet",
    "pq": "parquet",
    "csv": "csv",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
    "arrow": "arrow",
    "feather": "arrow",
    "ipc": "arrow",
}


def format_of(name: str) -> Format:
    """Return the format of a name.

    Raises
    ------
    FormatError
        If there is none.
    """
    from batchflow.io.formats.parquet import ParquetFormat
    from batchflow.io.formats.streaming import ArrowFormat, CsvFormat, JsonFormat

    known: dict[str, type[Format]] = {
        "parquet": ParquetFormat,
        "csv": CsvFormat,
        "jsonl": JsonFormat,
        "arrow": ArrowFormat,
    }
    if name not in known:
        message = f"unknown output format {name!r}: use one of {', '.join(NAMES)}{did_you_mean(name, NAMES)}"
        raise FormatError(message)
    return known[name]()


def name_of(into: str, named: str | None) -> tuple[str, bool]:
    """Return the format of a destination, and whether the destination is one file.

    A destination with the suffix of a format is one file, any other is a folder of parts.

    Raises
    ------
    FormatError
        If the suffix is of no format but looks like one, or is of another format than the one named.
    """
    tail = into.rstrip("/").rpartition("/")[2]
    suffix = tail.rpartition(".")[2].lower() if "." in tail.lstrip(".") else ""
    by_suffix = _SUFFIXES.get(suffix)
    if into.endswith("/") or not suffix:
        return named or "parquet", False
    if by_suffix is None and named is None:
        known = ", ".join(NAMES)
        message = f"{into!r}: {suffix!r} is no output format; use one of {known}, or end a folder with '/'"
        message += did_you_mean(suffix, _SUFFIXES)
        raise FormatError(message)
    if by_suffix is not None and named not in (None, by_suffix):
        message = f"{into!r} ends like {by_suffix}, but format={named!r} was asked for: change one of them"
        raise FormatError(message)
    return named or str(by_suffix), by_suffix is not None
