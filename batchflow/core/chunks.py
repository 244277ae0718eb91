"""Inputs, spans, chunks and pieces: where data is."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

from batchflow.core.compact_pickle import CompactPickle

Key: TypeAlias = tuple[int, ...]
"""Place of a chunk in the input: sorts as the input does, halves of a chunk between their neighbours."""


def _rebuild(number: int, *fields: Any) -> Any:
    """Return the object that was pickled by the number of its class."""
    return tuple.__new__(_COMPACT.classes[number], fields)


_COMPACT = CompactPickle(_rebuild)


UNKNOWN_VERSION = "unknown:"
"""Begins the version of records that cannot be compared with others."""


@_COMPACT
class InputFile(NamedTuple):
    """One file or object of a source, or the whole of an in-memory source."""

    uri: str
    """Path or URI, as errors and the ledger name it."""
    size: int = 0
    """Bytes of a file; records of an in-memory source."""
    version: str = ""
    """What changes when the content does: modification time in nanoseconds, or etag."""
    compression: str | None = None
    """``"gz"``, ``"bz2"``, ``"zst"``, ``"lz4"``, ``"xz"``; ``None``: plain."""
    place: str = ""
    """Canonical path or URI, if ``uri`` is another spelling of it."""

    @property
    def identity(self) -> str:
        """The one name of the input, whatever spelling or link leads to it."""
        return self.place or self.uri


@_COMPACT
class Span(NamedTuple):
    """A contiguous range of one input, in the unit of its source (bytes, rows or records)."""

    input: InputFile
    start: int = 0
    stop: int | None = None
    """``None``: to the end of an input that is not cut."""
    header: Any = None
    """What the driver had to read ahead for the worker, the column names of a CSV file."""
    only: tuple[int, ...] | None = None
    """Numbers of the records to process, in order; the others are read and left out. ``None``: all. A record is
    then known by its index in here: blocks, counts and failures have that for its number."""

    @property
    def whole(self) -> bool:
        """Whether the span covers its input from end to end."""
        return self.start == 0 and self.stop is None


@_COMPACT
class Chunk(NamedTuple):
    """A contiguous range of a source: the unit of work, retry and resume.

    A chunk is one span, or many whole small inputs. ``skip`` and ``take`` narrow one span further, in
    records, after it was halved: so a compressed file, which cannot be cut, can be halved too.
    """

    spans: tuple[Span, ...]
    weight: int
    """Cost in the unit that sizes are measured in: bytes, or records in memory."""
    skip: int = 0
    take: int | None = None
    of: int | None = None
    """Records of its span, known once the chunk was halved."""

    def cut(self, records: int, places: "Sequence[int]") -> "list[Chunk]":
        """Return a chunk of one span that holds this many records, cut before the records with these numbers."""
        whole = self._replace(of=self.of or records)
        bounds = [0, *places, records]
        return [
            whole._replace(
                weight=max(1, self.weight * (stop - start) // records), skip=self.skip + start, take=stop - start
            )
            for start, stop in pairwise(bounds)
        ]

    def halve(self, records: int) -> "tuple[Chunk, Chunk]":
        """Return the two halves of a chunk of one span that holds this many records, at least two."""
        one, two = self.cut(records, [records // 2])
        return one, two


@_COMPACT
class Piece(NamedTuple):
    """The rows of one chunk on disk, not yet part of the output."""

    path: str
    rows: int
    nbytes: int
    """Size on disk."""
    schema: Any
    """Its `pyarrow.Schema`."""
    digest: str = ""
    """Of its bytes."""

    @property
    def name(self) -> str:
        """Of its file, without the folder."""
        return self.path.rpartition("/")[2]


@_COMPACT
class Slice(NamedTuple):
    """Some rows of a finished part, on their way into the part that takes its place."""

    path: str
    start: int = 0
    stop: int | None = None
    """``None``: to its end."""
    of_piece: bool = False
    """The rows are those of a piece, whose format may be another one than that of parts."""

    @property
    def whole(self) -> bool:
        """Whether these are all rows of the part."""
        return self.start == 0 and self.stop is None
