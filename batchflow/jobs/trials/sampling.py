"""Stratified samples of an input, and a sandbox for their output."""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from batchflow.core.chunks import Chunk, InputFile, Key
from batchflow.errors import DestinationError, UsageError
from batchflow.io.sources import Source
from batchflow.io.sources.base import ChunkCursor, KeyedChunk
from batchflow.io.sources.splitter import FILE_WEIGHT
from batchflow.io.stores import Place, is_uri
from batchflow.plan import JobSpec

_END: Key = (sys.maxsize,)
_STEP = 16 << 20
"""Weight that is passed over at a time: cutting a CSV file reads it, and there may be little time."""


class Sample(NamedTuple):
    """Some pieces of an input."""

    pieces: tuple[KeyedChunk, ...]
    total: int
    """Weight of the whole input."""
    seconds: float
    """That it took to cut them off the whole of it."""
    reached: bool = True
    """Whether there was time to go through the input to its end."""

    @property
    def weight(self) -> int:
        """Of all pieces."""
        return sum(piece.chunk.weight for piece in self.pieces)

    @property
    def share(self) -> float:
        """Of the input."""
        return min(1.0, self.weight / self.total) if self.total else 1.0


class PieceCursor(ChunkCursor):
    """Draws pieces that were cut before, in the order in which they are given.

    Parameters
    ----------
    allows
        Asked with each piece whether there is time for it; otherwise it is left out.
    """

    def __init__(self, pieces: Sequence[KeyedChunk], allows: Callable[[KeyedChunk], bool] | None = None) -> None:
        self._pieces = list(reversed(pieces))
        self._allows = allows
        self.total: int | None = sum(piece.chunk.weight for piece in pieces)

    def draw(self, weight: int) -> KeyedChunk | None:
        """Return the next piece, whatever weight is asked for."""
        del weight
        while self._pieces and self._allows is not None and not self._allows(self._pieces[-1]):
            self._pieces.pop()
        return self._pieces.pop() if self._pieces else None

    @property
    def frontier(self) -> Key:
        """Key below which every piece has been drawn."""
        return min((piece.key for piece in self._pieces), default=_END)


def take_sample(
    source: Source,
    inputs: Sequence[InputFile],
    wanted: int,
    pieces: int,
    seconds: float | None = None,
    within: int | None = None,
) -> Sample:
    """Cut pieces off an input, each from a random place within its share of it, so that each part is in it.

    A file that cannot be cut is taken whole if a place lies in it, so its chance is that of its size.

    Parameters
    ----------
    wanted
        Weight of all pieces.
    pieces
        How many there are to be.
    seconds
        What may be spent on it; what lies behind is not in the sample then.
    within
        Weight at the beginning of the input that the sample is from; by default all of it.

    Raises
    ------
    UsageError
        If the records come from a generator, which gives each of them once.
    """
    began = time.monotonic()
    cursor = source.cursor(inputs, None) if inputs[0].size >= 0 else None
    if cursor is None or cursor.total is None:
        message = "these records come from a generator, of which no sample can be taken: pass a list instead"
        raise UsageError(message)
    until = None if seconds is None else began + seconds
    total = min(cursor.total, within or cursor.total)
    many = not source.in_memory and len(inputs) > 1
    strata = _StratifiedSampler(
        cursor, total, min(total, max(1, wanted)), max(1, pieces), until, source.cuttable, many
    )
    found = tuple(islice(strata.pieces(), None if within is None else pieces))
    return Sample(found, cursor.total, time.monotonic() - began, strata.reached)


class _StratifiedSampler:
    """Parts of an input, as many as there are to be pieces, with a piece from a random place in each."""

    def __init__(
        self,
        cursor: ChunkCursor,
        total: int,
        wanted: int,
        pieces: int,
        until: float | None,
        cuttable: Callable[[InputFile], bool],
        many: bool,
    ) -> None:
        self._cuttable = cuttable
        self._cursor = cursor
        self._many = many
        self._until = until
        self._piece = max(1, -(-wanted // pieces))
        self._gap = max(0.0, (total - wanted) * self._piece / max(1, wanted))
        self._random = random.Random(f"{wanted} of {total}")  # other places for each size
        self.reached = True

    def pieces(self) -> Iterator[KeyedChunk]:
        """Yield the pieces in order."""
        behind = 0.0
        while True:
            offset = self._random.uniform(0, self._gap)
            skip = behind + offset
            found, passed = self._at(skip)
            if found is None:
                return
            weight = self._weight(found.chunk)
            yield found._replace(chunk=found.chunk._replace(weight=max(1, round(weight))))
            # What was passed over beyond the place, and taken beyond the size, is not passed over again.
            behind = self._gap - offset - (passed - skip) - (weight - self._piece)

    def _at(self, skip: float) -> tuple[KeyedChunk | None, float]:
        """Return the piece at a distance, and the weight that was passed over."""
        passed = 0.0
        while passed + 1 <= skip:
            if self._until is not None and time.monotonic() > self._until:
                self.reached = False
                return None, passed
            step = min((skip - passed + 1) / 2, _STEP)  # half: the last cut of a file takes up a short rest
            drawn = self._cursor.draw(max(1, int(step)))
            if drawn is None:
                return None, passed
            if passed + drawn.chunk.weight > skip and self._is_uncut(drawn.chunk):
                return drawn, passed
            passed += self._weight(drawn.chunk)
        return self._cursor.draw(self._piece), passed

    def _weight(self, chunk: Chunk) -> float:
        """Return the weight of a chunk as the total counts it: one of many short files is more than its bytes."""
        item = chunk.spans[0].input
        short = self._many and not chunk.spans[0].whole and item.size < FILE_WEIGHT
        return chunk.weight * FILE_WEIGHT / max(1, item.size) if short else chunk.weight

    def _is_uncut(self, chunk: Chunk) -> bool:
        return len(chunk.spans) == 1 and not self._cuttable(chunk.spans[0].input)


@contextmanager
def sandboxed(spec: JobSpec) -> Iterator[tuple[JobSpec, list[str]]]:
    """Give a job that writes beside its output, on the same disk, and what is to be known of that.

    Raises
    ------
    DestinationError
        If nothing can be written there.
    """
    if spec.into is None:
        yield replace(spec, fresh=False), []
        return
    into = os.fspath(spec.into)
    folder = _made(into)
    notes = [f"written to a temporary folder of this machine, and not to {into}"] if is_uri(into) else []
    try:
        name = into.rstrip("/").rpartition("/")[2] + ("/" if into.endswith("/") else "")
        yield replace(spec, into=f"{folder}/{name}", fresh=True), notes
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def output_of(spec: JobSpec) -> Place | None:
    """Return the output of a job, whatever is there."""
    if spec.into is None:
        return None
    from batchflow.checkpoint.destination_checks import canonical_place

    return canonical_place(os.fspath(spec.into))


def _made(into: str) -> str:
    """Return a new folder beside an output, or below the nearest folder above it that there is."""
    if is_uri(into):
        return tempfile.mkdtemp(prefix="bf-try-")
    parents = Path(into).expanduser().absolute().parents
    parent = next(one for one in parents if one.exists())
    try:
        return tempfile.mkdtemp(prefix=".bf-try-", dir=parent)
    except OSError as error:
        message = f"cannot write to {into}: {error.strerror} in {parent}"
        raise DestinationError(message) from error
