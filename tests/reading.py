"""Reads sources as a job does, without one: draw chunks, read them, count numbers through."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

from batchflow.core.chunks import Chunk
from batchflow.io.sources import KeyedChunk, Source

WHOLE = 10**12
"""Weight that takes all files in one chunk."""


@dataclass
class Seen:
    """What came out of a source."""

    records: list[tuple[str, int, tuple[int, int | None], Any]] = field(default_factory=list)
    """Source, number from 1, place, record."""
    failures: list[tuple[str, int, int | None, int | None, str | None, str]] = field(default_factory=list)
    """Source, number from 1, start, stop, payload, message."""
    used: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Numbers used up by each input."""

    @property
    def rows(self) -> list[Any]:
        return [record for *_, record in self.records]

    @property
    def numbers(self) -> list[int]:
        return [number for _, number, _, _ in self.records]

    @property
    def messages(self) -> list[str]:
        return [message for *_, message in self.failures]


def ready(source: Source) -> Source:
    """Return a source as the driver prepares it for its workers."""
    return source.prepared(source.inputs())


def draw(source: Source, weights: int | Sequence[int] = WHOLE, heavy: int | None = None) -> list[KeyedChunk]:
    """Draw all chunks, in the order of drawing."""
    cursor = source.cursor(source.inputs(), heavy)
    drawn: list[KeyedChunk] = []
    for weight in cycle([weights] if isinstance(weights, int) else weights):
        before = cursor.frontier
        chunk = cursor.draw(weight)
        if chunk is None:
            return drawn
        assert chunk.key >= before, "a chunk was drawn behind the frontier"
        assert cursor.frontier >= before, "the frontier went back"
        drawn.append(chunk)
    raise AssertionError


def read(source: Source, weights: int | Sequence[int] = WHOLE, heavy: int | None = None) -> Seen:
    """Read a source in chunks of some weights."""
    source = ready(source)
    drawn = sorted(draw(source, weights, heavy), key=lambda one: one.key)
    return read_chunks(source, [(one.chunk, one.data) for one in drawn])


def read_chunks(source: Source, chunks: Iterable[tuple[Chunk, Any]]) -> Seen:
    """Read chunks in input order; numbers go on from chunk to chunk."""
    seen = Seen()
    worker = source.shipped()
    for chunk, data in chunks:
        _read_chunk(worker, chunk, data, seen)
    return seen


def _read_chunk(source: Source, chunk: Chunk, data: Any, seen: Seen) -> None:
    ends: dict[int, tuple[str, int]] = {}
    for block in source.read(chunk, data):
        uri = block.span.input.uri
        base = seen.used[uri] + 1
        rows = block.rows.to_pylist() if hasattr(block.rows, "to_pylist") else list(block.rows)
        for number, row in zip(block.numbers, rows, strict=True):
            assert number < block.end
            seen.records.append((uri, base + number, block.locate(number), row))
        for bad in block.failures:
            assert bad.source == uri
            assert bad.record is not None
            assert bad.record < block.end
            assert bad.phase == "read"
            seen.failures.append((uri, base + bad.record, bad.start, bad.stop, bad.payload, bad.message))
        ends[id(block.span)] = (uri, block.end)
    for uri, end in ends.values():
        seen.used[uri] += end


def count(source: Source, chunk: Chunk, data: Any = None) -> int:
    """Return the records of a chunk as the scheduler counts them before it halves."""
    ends = {id(block.span): block.end for block in source.shipped().read(chunk, data)}
    return sum(ends.values())


def halves(source: Source, chunk: Chunk, data: Any = None) -> Iterator[tuple[Chunk, Any]]:
    """Yield the chunks of single records that halving again and again leads to."""
    records = count(source, chunk, data)
    if records < 2:
        yield chunk, data
        return
    for half, part in source.halve(chunk, data, records):
        yield from halves(source, half, part)


def writer(folder: Path) -> Callable[..., str]:
    """Return a function that writes a file of a folder and returns its path."""

    def write(data: bytes | str, name: str = "file.txt") -> str:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return str(path)

    return write
