"""Inputs, spans, chunks and pieces: locations of data."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from batchflow.core.compact_pickle import CompactPickle

Key: TypeAlias = tuple[int, ...]
"""Key of a chunk by its position in the input; halves of a chunk sort between its neighbours."""


def _rebuild(number: int, *fields: Any) -> Any:
    """Return the object that was pickled by the number of its class."""
    return tuple.__new__(_COMPACT.classes[number], fields)


_COMPACT = CompactPickle(_rebuild)


UNKNOWN_VERSION = "unknown:"
"""Prefix of the version of records that cannot be compared with others."""


@_COMPACT
class InputFile(NamedTuple):
    """One file or object of a source, or a whole in-memory source."""

    uri: str
    """Path or URI, as shown in errors and in the ledger."""
    size: int = 0
    """Size in bytes; for an in-memory source, number of records."""
    version: str = ""
    """Version of the content: modification time in nanoseconds, or etag."""
    compression: str | None = None
    """``"gz"``, ``"bz2"``, ``"zst"``, ``"lz4"``, ``"xz"``; ``None``: plain."""
    place: str = ""
    """Canonical path or URI, if ``uri`` is another spelling of it."""

    @property
    def identity(self) -> str:
        """Canonical name of the input, whatever spelling or link leads to it."""
        return self.place or self.uri


@_COMPACT
class Span(NamedTuple):
    """Contiguous range of one input, in the unit of its source (bytes, rows or records)."""

    input: InputFile
    start: int = 0
    stop: int | None = None
    """End of the range; ``None``: end of an input that is not split."""
    header: Any = None
    """Data that the driver has already read for the worker, such as the column names of a CSV file."""
    only: tuple[int, ...] | None = None
    """Numbers of the records to process, in order; other records are read and dropped. ``None``: all. Blocks,
    counts and failures then number a record by its index in this tuple.
    """

    @property
    def whole(self) -> bool:
        """Whether the span covers its whole input."""
        return self.start == 0 and self.stop is None


@_COMPACT
class Chunk(NamedTuple):
    """Contiguous range of a source: the unit of work, retry and resume.

    A chunk is one span, or many whole small inputs. ``skip`` and ``take`` narrow a halved span further, in
    records, so that even a compressed file, which cannot be split, can be halved.
    """

    spans: tuple[Span, ...]
    weight: int
    """Cost in the unit of chunk sizes: bytes, or records in memory."""
    skip: int = 0
    take: int | None = None
    of: int | None = None
    """Total number of records in the span, known once the chunk was halved."""

    def cut(self, records: int, places: "Sequence[int]") -> "list[Chunk]":
        """Split a chunk of one span with this many records before the records with these numbers."""
        whole = self._replace(of=self.of or records)
        bounds = [0, *places, records]
        return [
            whole._replace(
                weight=max(1, self.weight * (stop - start) // records), skip=self.skip + start, take=stop - start
            )
            for start, stop in pairwise(bounds)
        ]

    def halve(self, records: int) -> "tuple[Chunk, Chunk]":
        """Split a chunk of one span, with this many records (at least two), into halves."""
        one, two = self.cut(records, [records // 2])
        return one, two


@_COMPACT
class Piece(NamedTuple):
    """Rows of one chunk on disk, not yet part of the output."""

    path: str
    rows: int
    nbytes: int
    """Size on disk in bytes."""
    schema: Any
    """Schema of the rows, a `pyarrow.Schema`."""
    digest: str = ""
    """Hash of the file."""

    @property
    def name(self) -> str:
        """File name without the folder."""
        return self.path.rpartition("/")[2]


@_COMPACT
class Slice(NamedTuple):
    """Rows of a finished part that are copied into the part that replaces it."""

    path: str
    start: int = 0
    stop: int | None = None
    """End of the rows; ``None``: end of the part."""
    of_piece: bool = False
    """Whether the rows are in a piece, whose format may differ from that of parts."""

    @property
    def whole(self) -> bool:
        """Whether the slice covers the whole part."""
        return self.start == 0 and self.stop is None
