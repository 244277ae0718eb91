"""Isolation of the record that broke off a chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from batchflow.core.chunks import Chunk
from batchflow.core.outcomes import Failed
from batchflow.core.work import Task
from batchflow.io.sources.base import Source
from batchflow.worker.position import NEARLY


class ChunkPart(NamedTuple):
    """Part of a chunk that broke off."""

    chunk: Chunk
    data: Any
    suspect: bool = False
    """Whether it holds exactly the records that the function was processing."""


def parts_around(source: Source, task: Task, outcome: Failed, counts: Sequence[int]) -> list[ChunkPart]:
    """Split a chunk into the parts before, at and after the position where it broke off.

    Of a task that took too long with no record that did, the last one begins at its record: what is before
    took most of the time, and comes in halves.

    Parameters
    ----------
    counts
        Records in each span.

    Returns
    -------
    list
        Less than two where the position is not known, or says nothing.
    """
    position, spans = outcome.position, task.chunk.spans
    if position is None or len(counts) != len(spans):
        return []
    at = position.span
    records = counts[at]
    first = min(position.first, records)
    if is_guilty(outcome) or outcome.failure.phase != "timeout":
        places = [first, min(first + position.records, records)]
        suspect = 1
    else:
        places = [first // 2, first]
        suspect = -1
    chunk = Chunk(spans[at : at + 1], _weight(task.chunk, 1)) if len(spans) > 1 else task.chunk
    bounds = [0, *places, records]
    cut = source.cut(chunk, task.data, places, records)
    parts = [
        ChunkPart(part, data, number == suspect)
        for number, (part, data) in enumerate(cut)
        if bounds[number] < bounds[number + 1]
    ]
    if len(parts) == 1:
        parts = [ChunkPart(chunk, task.data, parts[0].suspect)]
    before, after = spans[:at], spans[at + 1 :]
    return [
        *(ChunkPart(Chunk(some, _weight(task.chunk, len(some))), task.data) for some in (before,) if some),
        *parts,
        *(ChunkPart(Chunk(some, _weight(task.chunk, len(some))), task.data) for some in (after,) if some),
    ]


def is_guilty(outcome: Failed) -> bool:
    """Whether the record at which a task broke off had the whole time limit for itself."""
    position, limit = outcome.position, outcome.limit
    if position is None or limit is None:
        return False
    return position.records == 1 and position.seconds >= limit * NEARLY


def _weight(chunk: Chunk, spans: int) -> int:
    return max(1, chunk.weight * spans // len(chunk.spans))


def records_name(chunk: Chunk) -> str:
    """Return the name of a part's records, as far as known before earlier records are counted."""
    span = chunk.spans[0]
    name = span.input.uri.rpartition("/")[2]
    if len(chunk.spans) > 1:
        return f"{len(chunk.spans):,} files from {name}"
    in_memory = span.stop is not None and span.stop - span.start == chunk.weight and chunk.of is None
    if span.start and not in_memory:
        return f"a record of {name} after byte {span.start:,}"
    first = (span.start if in_memory else chunk.skip) + 1
    records = chunk.weight if in_memory else chunk.take
    if records == 1:
        return f"record {first:,} of {name}"
    return f"records from {first:,} of {name}"
