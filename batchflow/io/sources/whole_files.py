"""Whole files: a record is a `File`, opened by the function itself."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any, ClassVar

from batchflow.core.chunks import InputFile, Span
from batchflow.io.arrow.convert import rows_to_table
from batchflow.io.sources.base import Block
from batchflow.io.sources.file_source import FileSource
from batchflow.io.sources.paths import is_elsewhere, open_input, path_of, refuse_irregular
from batchflow.io.sources.splitter import processing_weight
from batchflow.io.stores.uri import is_uri

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class File:
    """One file of an input, to be opened where the function runs."""

    uri: str
    """Path or URI."""
    size: int
    """Bytes when the job was planned."""

    @property
    def path(self) -> str:
        """Path of a local file, or of a copy of it where only the driver sees it; otherwise the URI itself."""
        return path_of(self.uri).removeprefix("file://")

    def open(self) -> IO[bytes]:
        """Open the file for reading bytes, as it is (not decompressed)."""
        raw: Any = open_input(self.uri)
        return raw if is_uri(self.uri) else io.BufferedReader(raw)

    def read_bytes(self) -> bytes:
        """Return the whole content."""
        with closing(self.open()) as stream:
            return stream.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the whole content as text, line endings as they are."""
        return self.read_bytes().decode(encoding)

    def __str__(self) -> str:
        return self.uri


@dataclass(frozen=True)
class WholeFiles(FileSource):
    """Files as they are; in `map_batches` a table with the columns ``uri`` and ``size``."""

    kind: ClassVar[str] = "files"

    def cuttable(self, item: InputFile) -> bool:
        """Whether a file can be cut: never, it is one record."""
        return False

    def extent(self, item: InputFile) -> int | None:
        """Return nothing: a file is whole, whatever its bytes."""
        return None

    def counted(self, records: int) -> WholeFiles:
        """Return the source for chunks of so many files, whatever their bytes."""
        return replace(self, per_chunk=records)

    def record_weight(self, inputs: Sequence[InputFile]) -> float:
        """Return the mean weight of a file."""
        return sum(map(processing_weight, inputs)) / len(inputs)

    def table(self, rows: Sequence[Any]) -> pa.Table:
        """Return files as a table of their names and sizes."""
        return rows_to_table([{"uri": file.uri, "size": file.size} for file in rows])

    def blocks(self, span: Span, data: Any) -> Iterator[Block]:
        """Give one file as one record; of a pipe, which may be none, nothing would come."""
        del data
        item = span.input
        if not is_uri(item.uri) and not is_elsewhere(item.uri):
            refuse_irregular(item.uri)
        yield Block(span, [File(item.uri, item.size)], [0], 1, lambda _: (0, item.size), (), item.size)
