"""What a ledger says, and how its lines vouch for each other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from batchflow.core.chunks import Chunk, Piece
from batchflow.core.outcomes import Failure, Stats

LEDGER = "ledger.log"
LINK = 16
"""Digits of a line that vouch for it and those before."""


def link_of(before: str, text: str) -> str:
    """Return the digits that vouch for a line, and for the lines before by theirs."""
    return hashlib.sha256(f"{before}{text}".encode()).hexdigest()[:LINK]


class DoneChunk(NamedTuple):
    """A chunk that came to its end."""

    chunk: Chunk
    stats: Stats
    failures: Sequence[Failure]
    """Numbered within their spans."""
    pieces: tuple[Piece, ...]
    counted: bool = True
    """Whether it is known how many records it has."""


class DonePart(NamedTuple):
    """A part of the output."""

    name: str
    rows: int
    nbytes: int
    digest: str
    schema: Any
    """Its `pyarrow.Schema`."""
    chunks: tuple[tuple[int, int], ...]
    """Numbers of the chunks whose rows it holds, in input order, and how many rows of each."""
    temporary: str
    """Name, in the folder of pieces, that it has before it is visible."""


@dataclass
class History:
    """All that a ledger says."""

    chunks: dict[int, DoneChunk] = field(default_factory=dict)
    parts: dict[str, DonePart] = field(default_factory=dict)
    """By name, in the order of their numbers."""
    plans: list[str] = field(default_factory=list)
    """Digests of the plans of all runs."""
    schemas: list[Any] = field(default_factory=list)
    ended: bool = False
    """Whether everything that was planned is done."""
    errors: str = ""
    """Digest of the error table, once all is done."""
    complete: set[str] = field(default_factory=set)
    """Identities of the inputs that a finished run covered to their ends."""
    mends: bool = False
    """Whether the last run was one that tried again what had failed, after everything was done."""
    link: str = ""
    size: int = 0
    """Bytes of the whole lines."""

    def void(self, numbers: Iterable[int]) -> None:
        """Forget chunks: their inputs are not complete any more."""
        for number in numbers:
            self.complete -= {span.input.identity for span in self.chunks.pop(number).chunk.spans}

    def committed(self) -> dict[int, int]:
        """Return how many rows of each chunk are in parts."""
        rows: dict[int, int] = {}
        for part in self.parts.values():
            for number, count in part.chunks:
                rows[number] = rows.get(number, 0) + count
        return rows
