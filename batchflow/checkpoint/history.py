"""Contents of a ledger, and the hash chain of its lines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from batchflow.core.chunks import Chunk, Piece
from batchflow.core.outcomes import Failure, Stats

LEDGER = "ledger.log"
LINK = 16
"""Length of the hash in each line, in hexadecimal digits."""


def link_of(before: str, text: str) -> str:
    """Return the hash of a line, chained to the hash of the line before."""
    return hashlib.sha256(f"{before}{text}".encode()).hexdigest()[:LINK]


class DoneChunk(NamedTuple):
    """Finished chunk."""

    chunk: Chunk
    stats: Stats
    failures: Sequence[Failure]
    """Failures, numbered within their spans."""
    pieces: tuple[Piece, ...]
    counted: bool = True
    """Whether its number of records is known."""


class DonePart(NamedTuple):
    """Part of the output."""

    name: str
    rows: int
    nbytes: int
    digest: str
    schema: Any
    """Schema of the part, a `pyarrow.Schema`."""
    chunks: tuple[tuple[int, int], ...]
    """Chunks whose rows it holds, in input order: number and rows of each."""
    temporary: str
    """Name in the folder of pieces before the part is visible."""


@dataclass
class History:
    """Parsed contents of a ledger."""

    chunks: dict[int, DoneChunk] = field(default_factory=dict)
    parts: dict[str, DonePart] = field(default_factory=dict)
    """Parts by name, in the order of their numbers."""
    plans: list[str] = field(default_factory=list)
    """Digests of the plans of all runs."""
    schemas: list[Any] = field(default_factory=list)
    ended: bool = False
    """Whether all planned work is done."""
    errors: str = ""
    """Digest of the error table, once all work is done."""
    complete: set[str] = field(default_factory=set)
    """Identities of the inputs that a finished run covered completely."""
    mends: bool = False
    """Whether the last run retried failures after all work was done."""
    link: str = ""
    size: int = 0
    """Bytes of the whole lines."""

    def void(self, numbers: Iterable[int]) -> None:
        """Drop chunks, and mark their inputs incomplete."""
        for number in numbers:
            self.complete -= {span.input.identity for span in self.chunks.pop(number).chunk.spans}

    def committed(self) -> dict[int, int]:
        """Return how many rows of each chunk are in parts."""
        rows: dict[int, int] = {}
        for part in self.parts.values():
            for number, count in part.chunks:
                rows[number] = rows.get(number, 0) + count
        return rows
