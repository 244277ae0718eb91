"""Planner: lists inputs, sizes chunks, chooses the output and refuses mistakes before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from batchflow.core.chunk_sizing import AT_ONCE, RATE_SECONDS, ChunkPacing
from batchflow.core.chunks import InputFile
from batchflow.core.functions import side_by_side
from batchflow.core.rate import parse_rate
from batchflow.core.resources import parse_bytes
from batchflow.core.text import one
from batchflow.errors import InputError, UsageError
from batchflow.io.sources import Source
from batchflow.jobs.validation import LONGEST, check_spec
from batchflow.plan import JobSpec, Plan

if TYPE_CHECKING:
    from batchflow.io.stores import Place


def make_plan(spec: JobSpec, *, known_only: bool = False, output: Place | None = None) -> Plan:
    """Check a job, list its inputs and choose its output; runs nothing and changes nothing.

    Parameters
    ----------
    known_only
        Leave out inputs that no earlier run knew.
    output
        Output of the job that this one is a trial of; by default its own. No input is in it.

    Raises
    ------
    UsageError
        Whatever would make the job fail later: no input, an impossible function, cap or destination.
    """
    check_spec(spec)
    source: Any = spec.source
    if not isinstance(source, Source):
        message = (
            f"the input is {one(type(source).__qualname__)}, not a source: "
            "use read_text, read_json, read_csv, read_parquet, files or records"
        )
        raise InputError(message)
    if spec.per == "batch":
        source = source.for_batches()
    if isinstance(spec.chunk, int):
        source = source.counted(spec.chunk)
    if spec.into is None:
        listing = source.listed(output)
        inputs = tuple(listing.inputs)
        weights = _weights(spec, source, inputs)
        return Plan(spec, source.prepared(inputs), inputs, None, *weights, left_out=listing.left_out)
    from batchflow.checkpoint.destination_checks import canonical_place, destination_of
    from batchflow.jobs.resume import resume_plan

    # Before the destination is looked at: that it exists must not lead to the advice to remove what is read.
    listing = source.listed(output or canonical_place(spec.into))
    destination = destination_of(spec.into, spec.format)
    identified = tuple(source.identified(tuple(listing.inputs)))
    plan = resume_plan(spec, source, identified, destination, known_only=known_only)
    weight, pace = _weights(spec, source, plan.inputs)
    return replace(plan, chunk_weight=weight, pace=pace, left_out=listing.left_out)


def _weights(spec: JobSpec, source: Source, inputs: Sequence[InputFile]) -> tuple[int | None, ChunkPacing]:
    """Return the fixed weight of chunks if there is one, and the chunk pacing of I/O-bound calls."""
    fixed = _chunk_weight(spec, source, inputs)
    calls = side_by_side(spec.fn, spec.concurrency) or 1
    if fixed is not None or (calls == 1 and spec.rate is None):
        return fixed, AT_ONCE
    if spec.rate is None:
        return None, ChunkPacing(calls, source.record_weight(inputs))
    rate = parse_rate(spec.rate)
    if spec.per == "batch":
        return None, ChunkPacing(gap=rate.interval)
    # A task must end in its time, though its calls are held back.
    seconds = min(RATE_SECONDS, (spec.timeout or LONGEST) / 4)
    return None, ChunkPacing(calls, source.record_weight(inputs), rate.per_second * seconds)


def _chunk_weight(spec: JobSpec, source: Source, inputs: Sequence[InputFile]) -> int | None:
    """Return the fixed weight of chunks, ``None`` if it adapts to measurements."""
    if spec.chunk is None:
        return None
    chunk: Any = spec.chunk
    if not isinstance(chunk, str):
        if not isinstance(chunk, int) or chunk <= 0:
            message = f"chunk={spec.chunk} must be positive: a number of records, or bytes like '8MB'"
            raise UsageError(message)
        return max(1, round(chunk * source.record_weight(inputs)))
    if source.in_memory:
        message = f"chunk={spec.chunk!r}: records in memory have no size in bytes, so give a number of records"
        raise UsageError(message)
    return parse_bytes(spec.chunk)
