"""What a job is, and its plan: inputs counted, output chosen, mistakes refused before anything runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal

from batchflow.calling import side_by_side
from batchflow.checking import LONGEST, check_spec
from batchflow.errors import DestinationError, InputError, LedgerError, UsageError
from batchflow.formats import format_of, name_of
from batchflow.ledger import History, has_ledger, is_begun, read_ledger
from batchflow.manifest import (
    PLAN,
    check_same,
    describe,
    digest_of,
    encoded,
    inputs_of,
    manifest,
    merged_inputs,
    read_plan,
)  # fmt: skip
from batchflow.model import Input
from batchflow.printable import printable
from batchflow.rate import Rate, parse_rate
from batchflow.resources import Resources, format_bytes, parse_bytes
from batchflow.retry import NEVER, Retry
from batchflow.sources import Source
from batchflow.sources.cutting import total_weight
from batchflow.splitting import AT_ONCE, RATE_SECONDS, Pace
from batchflow.stores import Place, Store, Uri, is_uri, place_of, store_of, why_refused

META = "_batchflow"
"""Folder of a dataset that holds what is not data."""
ERRORS = "errors.parquet"
"""The error table in it."""


@dataclass(frozen=True)
class JobSpec:
    """Everything that says what a job does; see `batchflow.map_records` for the arguments."""

    fn: Callable[..., Any]
    source: Source
    _: KW_ONLY
    per: Literal["record", "batch"] = "record"
    into: str | None = None
    format: str | None = None
    setup: Callable[[], Any] | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    combine: Callable[[Any], Any] | None = None
    limits: Resources = field(default_factory=Resources)
    per_task: Resources = field(default_factory=Resources)
    retry: Retry = NEVER
    timeout: float | None = None
    concurrency: int | None = None
    rate: float | str | Rate | None = None
    max_errors: int | float | None = None
    isolate: bool | None = None
    chunk: int | str | None = None
    part_size: int | str = "128MB"
    version: str | None = None
    fresh: bool = False

    @property
    def isolates(self) -> bool:
        """Whether a chunk is halved whose function raised: unless the first error stops the job anyway."""
        return self.max_errors != 0 if self.isolate is None else self.isolate


@dataclass(frozen=True)
class Destination:
    """Where the output goes."""

    path: Place
    format: str
    one_file: bool

    @property
    def store(self) -> Store:
        """What works on it."""
        return store_of(self.path)

    @property
    def meta(self) -> Place:
        """Folder for what is not data: inside a dataset, beside a file."""
        return self.path.with_name(f".{self.path.name}{META}") if self.one_file else self.path / META

    @property
    def pieces(self) -> Place:
        """Folder for what is not yet a part."""
        return self.meta / "pieces"


@dataclass(frozen=True)
class Plan:
    """A job that can run: its inputs are known, its output is possible."""

    spec: JobSpec
    source: Source
    """The source with all that the driver had to find out."""
    inputs: tuple[Input, ...]
    destination: Destination | None
    chunk_weight: int | None
    """Weight of every chunk where the user fixed it: bytes, or records in memory."""
    pace: Pace = AT_ONCE
    """What calls that wait ask of the chunks."""
    history: History | None = None
    """What earlier runs did of the output."""
    manifest: bytes = b""
    """What is written down of the job beside its output."""

    @property
    def finished(self) -> bool:
        """Whether earlier runs did all there is to do."""
        history = self.history
        return history is not None and history.ended and digest_of(self.manifest) == history.plans[-1]

    @property
    def size(self) -> int | None:
        """Bytes of the files, or records in memory; ``None`` for a generator."""
        sizes = [item.size for item in self.inputs]
        return None if min(sizes, default=0) < 0 else sum(sizes)

    @property
    def total(self) -> int | None:
        """Weight of the input: bytes of plain text, or records in memory."""
        return self.size if self.source.in_memory else total_weight(self.inputs)

    @property
    def uncuttable(self) -> list[Input]:
        """Files that are one chunk each, however large."""
        return [item for item in self.inputs if not self.source.cuttable(item)]

    def explain(self) -> str:
        """Return the plan in a few lines of text."""
        amount = "unknown, read as it comes" if self.size is None else f"{self.size:,} records"
        if not self.source.in_memory:
            amount = f"{len(self.inputs):,} files, {format_bytes(self.size or 0)}"
        lines = [f"input     {self.source.kind}: {amount}"]
        whole = self.uncuttable
        if whole and self.source.kind != "files":
            big = max(whole, key=lambda item: item.size)
            lines.append(
                f"not cut   {len(whole):,} compressed files; the largest is {printable(big.uri)} "
                f"({format_bytes(big.size)}): each is one chunk, so split it or store it uncompressed if it "
                "dominates"
            )
        lines.append(f"function  {describe(self.spec.fn)}, once for each {self.spec.per}{self._waiting()}")
        lines.append(f"chunks    {self._chunks()}")
        if self.destination is None:
            lines.append("output    in memory")
        else:
            shape = "one file" if self.destination.one_file else f"parts of about {self._part_size()}"
            lines.append(f"output    {self.destination.path} ({self.destination.format}, {shape})")
        if self.history is not None:
            done = sum(chunk.stats.rows_in for chunk in self.history.chunks.values())
            left = "nothing is left to do" if self.finished else "the run goes on from there"
            lines.append(f"done      {done:,} records in {len(self.history.chunks):,} chunks: {left}")
        return "\n".join(lines)

    def _waiting(self) -> str:
        """Return in words how calls wait side by side."""
        calls = side_by_side(self.spec.fn, self.spec.concurrency)
        told = f", {calls:,} at once in each worker" if calls else ""
        return told if self.spec.rate is None else f"{told}, at most {parse_rate(self.spec.rate)} in all"

    def _part_size(self) -> str:
        return format_bytes(parse_bytes(self.spec.part_size))

    def _chunks(self) -> str:
        weight = self.chunk_weight
        if weight is None:
            return "sized while running, about half a second each"
        unit = "records" if self.source.in_memory else "bytes"
        if not isinstance(self.spec.chunk, str) and self.source.kind == "files":
            return f"{self.spec.chunk:,} files each, {-(-len(self.inputs) // (self.spec.chunk or 1)):,} of them"
        count = "" if self.total is None else f", about {max(1, -(-self.total // weight)):,} of them"
        return f"{weight:,} {unit} each{count}"


def _weights(spec: JobSpec, source: Source, inputs: Sequence[Input]) -> tuple[int | None, Pace]:
    """Return the fixed weight of chunks, if it is, and what calls that wait ask of the others."""
    fixed = _chunk_weight(spec, source, inputs)
    calls = side_by_side(spec.fn, spec.concurrency) or 1
    if fixed is not None or (calls == 1 and spec.rate is None):
        return fixed, AT_ONCE
    if spec.rate is None:
        return None, Pace(calls, source.record_weight(inputs))
    rate = parse_rate(spec.rate)
    if spec.per == "batch":
        return None, Pace(gap=rate.interval)
    # A task must end in its time, though its calls are held back.
    seconds = min(RATE_SECONDS, (spec.timeout or LONGEST) / 4)
    return None, Pace(calls, source.record_weight(inputs), rate.per_second * seconds)


def _chunk_weight(spec: JobSpec, source: Source, inputs: Sequence[Input]) -> int | None:
    """Return the fixed weight of chunks, ``None`` where it follows what is measured."""
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


def make_plan(spec: JobSpec, *, known_only: bool = False) -> Plan:
    """Check a job, list its inputs and choose its output; runs nothing and changes nothing.

    Parameters
    ----------
    known_only
        Leave out inputs that no earlier run knew.

    Raises
    ------
    UsageError
        Whatever would make the job fail later: no input, an impossible function, cap or destination.
    """
    check_spec(spec)
    source: Any = spec.source
    if not isinstance(source, Source):
        message = (
            f"the input is a {type(source).__qualname__}, not a source: "
            "use read_text, read_json, read_csv, read_parquet, files or records"
        )
        raise InputError(message)
    if isinstance(spec.chunk, int):
        source = source.counted(spec.chunk)
    destination = None if spec.into is None else _destination(spec)
    inputs = tuple(source.inputs())
    if destination is None:
        return Plan(spec, source.prepared(inputs), inputs, None, *_weights(spec, source, inputs))
    return _with_history(spec, source, tuple(source.identified(inputs)), destination, known_only=known_only)


def _with_history(
    spec: JobSpec, source: Source, inputs: tuple[Input, ...], destination: Destination, *, known_only: bool
) -> Plan:
    """Return a plan that goes on with what is there of its output."""
    before, history = (None, None) if spec.fresh else read_history(destination)
    if history is not None and _was_removed(destination, history):
        before = history = None
    where = str(destination.path)
    if before is None:
        prepared = source.prepared(inputs)
    else:
        check_same(before, manifest(spec, source.options(), (), destination.format), where)
        known = inputs_of(before)
        merged = merged_inputs(known, inputs, where)
        inputs = merged[: len(known)] if known_only else merged
        prepared = source.relearned(before["learned"])
    plan = manifest(spec, source.options(), inputs, destination.format) | {"learned": prepared.learned()}
    if before is not None and before["inputs"] == plan["inputs"] and spec.version in (None, before["version"]):
        plan = before  # nothing that matters is new
    weights = _weights(spec, source, inputs)
    return Plan(spec, prepared, inputs, destination, *weights, history, encoded(plan))


def _was_removed(destination: Destination, history: History) -> bool:
    """Whether somebody removed the one file of an output, so that it is made again."""
    if not destination.one_file or not history.parts or destination.store.size(destination.path) is not None:
        return False
    return not destination.store.sizes(destination.pieces).keys() & {
        part.temporary for part in history.parts.values()
    }


def read_history(destination: Destination) -> tuple[dict[str, Any], History] | tuple[None, None]:
    """Return the plan and the history of an output, if there is one.

    Raises
    ------
    LedgerError
        If they are damaged.
    """
    meta = destination.meta
    if not is_begun(meta) and destination.store.size(meta / PLAN) is None:
        return None, None  # a run begins before its plan is published
    plan, digest = read_plan(meta)
    history = read_ledger(meta, {item.uri: item for item in inputs_of(plan)})
    if digest not in history.plans:
        message = f"{meta / PLAN} was changed after it was written"
        raise LedgerError(message)
    return plan, history


def _destination(spec: JobSpec) -> Destination:
    into = os.fspath(spec.into or "")
    if is_uri(into):
        _refuse_uri(into)
    name, one_file = name_of(into, spec.format)
    format_of(name)
    # Absolute, since a function may change the working directory under us.
    destination = Destination(place_of(into), name, one_file)
    if isinstance(destination.path, Uri):
        _refuse_unreachable(destination.path)
    else:
        _refuse_forbidden(destination.path)
    _refuse_foreign(destination)
    return destination


def _refuse_uri(into: str) -> None:
    """Refuse a URI that holds what is no part of a name."""
    refused = why_refused(into)
    if refused is None and "?" in into:
        refused = f"into={into!r}: no options are taken behind '?': set AWS_ENDPOINT_URL, AWS_REGION and the like"
    if refused is not None:
        raise DestinationError(refused)


def _refuse_unreachable(path: Uri) -> None:
    """Refuse a bucket that is not there, or does not let itself be asked."""
    scheme, _, rest = path.text.partition("://")
    bucket = Uri(f"{scheme}://{rest.partition('/')[0]}")
    try:
        known = store_of(path).sizes(path) or scheme != "s3" or store_of(bucket).kind(bucket)
    except (OSError, ValueError) as error:
        message = f"cannot reach {path}: {printable(str(error))}"
        raise DestinationError(message) from error
    if not known:
        message = f"cannot write to {path}: there is no bucket {bucket}"
        raise DestinationError(message)


def _refuse_forbidden(path: Path) -> None:
    parent = next(above for above in [path, *path.parents] if above.exists())
    if not os.access(parent, os.W_OK):
        message = f"cannot write to {path}: no permission for {parent}"
        raise DestinationError(message)


def _refuse_foreign(destination: Destination) -> None:
    path, store = destination.path, destination.store
    kind = store.kind(path)
    if kind == "folder" and destination.one_file:
        message = f"{path} is a folder: end the name of a dataset with '/'"
        raise DestinationError(message)
    if kind == "file" and not destination.one_file:
        message = f"{path} is a file, but the output is a folder of parts: choose another name"
        raise DestinationError(message)
    taken = kind == "file" or store.sizes(path).keys() - {META}
    if taken and not has_ledger(destination.meta):
        message = f"{path} exists and was not made by batchflow: choose another destination or remove it"
        raise DestinationError(message)
