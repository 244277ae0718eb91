"""Verification that an output and its errors cover the input exactly once.

Each check yields what is wrong, in one line each; nothing yielded is the proof.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from batchflow.checkpoint.destination import ERRORS, Destination
from batchflow.checkpoint.history import LEDGER, DoneChunk, DonePart, History
from batchflow.checkpoint.ledger import refuse_busy
from batchflow.checkpoint.ledger_reader import ledger_size
from batchflow.checkpoint.manifest import difference, inputs_of
from batchflow.checkpoint.recovery import in_order, part_file, part_sizes
from batchflow.core.chunks import Chunk, InputFile
from batchflow.core.coverage import Coverage, missing_windows
from batchflow.core.text import counted
from batchflow.errors import DestinationError
from batchflow.io.sources import Source


def verify(
    destination: Destination, plan: Mapping[str, Any], history: History, source: Source | None
) -> Iterator[str]:
    """Yield each problem of an output.

    Parameters
    ----------
    plan, history
        What is written down of it; reading them has shown that nobody changed them.
    source
        Tells how much there is of each input; ``None`` where it was in the memory of a program.
    """
    if not history.ended:
        yield _unended(destination)
    elif ledger_size(destination.meta) != history.size:
        yield f"{LEDGER} goes on behind its last line"
    inputs = inputs_of(plan)
    if source is not None:
        yield from _changed_inputs(source, inputs)
    yield from _tiles(source, inputs, history)
    yield from _accounts(history)
    yield from _order(inputs, history)
    sizes = part_sizes(destination)
    for part in history.parts.values():
        yield from _check_part(destination, part, sizes.get(part.name))
    yield from _strangers(destination, sizes, history)
    yield from _check_errors(destination, history)


def gone_inputs(plan: Mapping[str, Any], source: Source | None) -> Iterator[str]:
    """Yield a note for each missing input, which is not a problem of the output."""
    for item in inputs_of(plan):
        if source is not None and source.described(item.uri) is None and not _was_nothing(item):
            yield f"the input {item.uri} is gone: what was made of it stays"


def _was_nothing(item: InputFile) -> bool:
    """Whether an input did not exist when the job was planned: a dangling link."""
    return item == item._replace(size=0, version="")


def _unended(destination: Destination) -> str:
    try:
        refuse_busy(destination.meta)
    except DestinationError as error:
        return str(error)
    return "the job has not come to its end: run it again, and it goes on"


def proof(counts: Mapping[str, int]) -> str:
    """Return the counts of `accounted` in words, after checks that found no problem."""
    more = f", and {counts['uncounted']:,} ranges that nobody could read" if counts["uncounted"] else ""
    if counts["damaged"]:
        more += f", and what nobody can read, behind the damage of {counted(counts['damaged'], 'file')}"
    records = "{rows_in:,} records in, {rows_out:,} rows out, {failed:,} failed".format(**counts)
    return f"{records}{more}: each accounted for once"


def accounted(history: History) -> dict[str, int]:
    """Return the records of an output by what became of them, and how much there is that nobody could count.

    That are ranges of records, and files that broke off.
    """
    stats = [done.stats for done in history.chunks.values()]
    counts = {name: sum(getattr(one, name) for one in stats) for name in ("rows_in", "rows_out", "failed")}
    failures = (failure for done in history.chunks.values() for failure in done.failures)
    damaged = {failure.source for failure in failures if failure.start is not None and failure.stop is None}
    uncounted = sum(not done.counted for done in history.chunks.values())
    return counts | {"uncounted": uncounted, "damaged": len(damaged)}


def _changed_inputs(source: Source, inputs: list[InputFile]) -> Iterator[str]:
    """Yield each existing input that has changed."""
    for item in inputs:
        now = source.described(item.uri)
        if now is not None and (now.size, now.version) != (item.size, item.version):
            yield f"the input {item.uri} has changed since: {difference(item, now)}"


def _tiles(source: Source | None, inputs: list[InputFile], history: History) -> Iterator[str]:
    """Check that the chunks cover each input from end to end, without gap or overlap."""
    chunks = [done.chunk for done in history.chunks.values()]
    coverage = Coverage(chunks)
    for item in inputs:
        extent = item.size if source is None else _extent(source, item)
        yield from _tile(item, coverage.ranges(item), extent)
    known = {item.identity for item in inputs}
    for chunk in chunks:
        if any(span.input.identity not in known for span in chunk.spans):
            yield f"{_name(chunk)} is of no input of the plan"
    halved: dict[Any, list[Chunk]] = defaultdict(list)
    for chunk in chunks:
        if chunk.of is not None:
            halved[chunk.spans].append(chunk)
    for parts in halved.values():
        yield from _windows(parts)


def _extent(source: Source, item: InputFile) -> int | None:
    try:
        return source.extent(item)
    except Exception:
        return None


def _tile(item: InputFile, ranges: list[tuple[int, int | None]], extent: int | None) -> Iterator[str]:
    at: int | None = 0  # None: behind the end, wherever that is
    for start, stop in ranges:
        if at is None or start < at:
            yield f"{item.uri}[{start}:{'' if at is None else at}] is done twice"
        elif start > at:
            yield f"{item.uri}[{at}:{start}] is missing"
        at = None if at is None or stop is None else max(at, stop)
    if at is not None and extent is not None and at < extent:
        yield f"{item.uri}[{at}:{extent}] is missing"


def _windows(parts: list[Chunk]) -> Iterator[str]:
    """Check that the parts of a halved chunk cover it once."""
    for skip, take in missing_windows(parts):
        yield f"records {skip} to {skip + take} of {_name(parts[0])} are missing"
    counted = sum(part.take or 0 for part in parts)
    missing = sum(take for _, take in missing_windows(parts))
    if counted + missing != (parts[0].of or 0):
        yield f"records of {_name(parts[0])} are done twice"


def _accounts(history: History) -> Iterator[str]:
    """Check that each row of a chunk is in exactly one part."""
    in_parts = history.committed()
    for number, done in history.chunks.items():
        stats = done.stats
        rows = in_parts.pop(number, 0)
        if rows != stats.rows_out and (rows or history.ended):
            yield f"{_name(done.chunk)} gave {stats.rows_out} rows, but the parts hold {rows} of them"
        if stats.failed > stats.rows_in:
            yield f"{_name(done.chunk)} had {stats.rows_in} records, but {stats.failed} of them failed"
        yield from _check_failures(done)
    for number in in_parts:
        yield f"a part holds rows of chunk {number}, which nothing tells of"


def _order(inputs: list[InputFile], history: History) -> Iterator[str]:
    """Check that the parts, in sequence, hold the chunks in input order."""
    known = {item.identity for item in inputs}
    chunks = {
        number: done
        for number, done in history.chunks.items()
        if all(span.input.identity in known for span in done.chunk.spans)
    }
    places = {number: at for at, (_, number, _) in enumerate(in_order(chunks, tuple(inputs)))}
    last = -1
    for part in history.parts.values():
        for number, _ in part.chunks:
            place = places.get(number, last)
            if place < last:
                yield f"{part.name} holds rows of {_name(chunks[number].chunk)} behind those of later input"
            last = place


def _check_failures(done: DoneChunk) -> Iterator[str]:
    """Check that the error table lists the failures of a chunk."""
    single = sum(failure.record is not None for failure in done.failures)
    if done.stats.failed and not done.failures:
        yield f"{done.stats.failed} records of {_name(done.chunk)} failed, but no error tells why"
    elif single == len(done.failures) and single != done.stats.failed:
        yield f"{done.stats.failed} records of {_name(done.chunk)} failed, but {single} errors tell why"


def _check_part(destination: Destination, part: DonePart, size: int | None) -> Iterator[str]:
    held = sum(rows for _, rows in part.chunks)
    if held != part.rows:
        yield f"{part.name} should hold {part.rows} rows, but its chunks have {held}"
    if size is None:
        yield f"{part.name} is gone"
    elif size != part.nbytes:
        yield f"{part.name} has {size} bytes and not {part.nbytes}: it was cut off or added to"
    elif destination.store.digest(part_file(destination, part.name)) != part.digest:
        yield f"{part.name} was changed after it was written"


def _strangers(destination: Destination, sizes: Mapping[str, int | None], history: History) -> Iterator[str]:
    """Find other files in the folder that a reader would treat as parts."""
    if destination.one_file:
        return
    for name in sorted(sizes):
        if not name.startswith(("_", ".")) and name not in history.parts:
            yield f"{name} is no part of this output, but a reader of the folder would take it for one"


def _check_errors(destination: Destination, history: History) -> Iterator[str]:
    file, store = destination.meta / ERRORS, destination.store
    if history.ended and (store.size(file) is None or store.digest(file) != history.errors):
        yield f"{file.name} is gone or was changed after it was written"


def _name(chunk: Chunk) -> str:
    first = chunk.spans[0]
    more = f" and {len(chunk.spans) - 1} more" if len(chunk.spans) > 1 else ""
    return f"{first.input.uri}[{first.start}:{'' if first.stop is None else first.stop}]{more}"
