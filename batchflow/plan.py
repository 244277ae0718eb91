"""Job specification and plan, as frozen values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from batchflow.checkpoint.destination import Destination
from batchflow.core.chunk_sizing import AT_ONCE, ChunkPacing
from batchflow.core.chunks import InputFile
from batchflow.core.functions import describe, side_by_side
from batchflow.core.rate import Rate, parse_rate
from batchflow.core.resources import Resources, format_bytes, parse_bytes
from batchflow.core.retry import NEVER, Retry
from batchflow.core.text import counted, printable
from batchflow.io.sources import Source
from batchflow.io.sources.splitter import total_weight

if TYPE_CHECKING:
    from batchflow.checkpoint.history import History


@dataclass(frozen=True)
class JobSpec:
    """Complete specification of a job; see `batchflow.map_records` for the arguments."""

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
        """Whether a chunk whose function raised is halved: unless the first error stops the job anyway."""
        return self.max_errors != 0 if self.isolate is None else self.isolate


@dataclass(frozen=True)
class Plan:
    """Executable job: inputs are listed, the output is valid."""

    spec: JobSpec
    source: Source
    """Source with all that the driver inspected."""
    inputs: tuple[InputFile, ...]
    destination: Destination | None
    chunk_weight: int | None
    """Fixed weight of every chunk if the user set it: bytes, or records in memory."""
    pace: ChunkPacing = AT_ONCE
    """Chunk pacing for I/O-bound calls."""
    history: History | None = None
    """History of the output from earlier runs."""
    manifest: bytes = b""
    """Manifest of the job, stored next to its output."""
    finished: bool = False
    """Whether earlier runs did all of the work."""
    left_out: tuple[str, ...] = ()
    """Outputs of other jobs in the input folders, which are not read."""
    replaced: tuple[int, int] = (0, 0)
    """Numbers of missing and of new inputs since earlier runs, if neither is 0."""

    @property
    def size(self) -> int | None:
        """Bytes of the files, or records in memory; ``None`` for a generator."""
        sizes = [item.size for item in self.inputs]
        return None if min(sizes, default=0) < 0 else sum(sizes)

    @property
    def doubts(self) -> tuple[str, ...]:
        """Doubts about how the input is read."""
        return (*self.source.doubtful(), *map(_left_out, self.left_out), *_replaced(*self.replaced))

    @property
    def total(self) -> int | None:
        """Weight of the input: bytes of plain text, or records in memory."""
        return self.size if self.source.in_memory else total_weight(self.inputs)

    @property
    def uncuttable(self) -> list[InputFile]:
        """Files that cannot be split and are one chunk each."""
        return [item for item in self.inputs if not self.source.cuttable(item)]

    def explain(self) -> str:
        """Return the plan in a few lines of text."""
        amount = "unknown, read as it comes" if self.size is None else counted(self.size, "record")
        if not self.source.in_memory:
            amount = f"{counted(len(self.inputs), 'file')}, {format_bytes(self.size or 0)}"
        lines = [f"input     {self.source.kind}: {amount}"]
        lines += [f"{name:<10}{printable(told)}" for name, told in self.source.summary()]
        lines += [f"left out  {_left_out(output)}" for output in self.left_out]
        lines += [f"replaced  {told}" for told in _replaced(*self.replaced)]
        whole = self.uncuttable
        packed = all(item.compression for item in whole)
        what, plain = ("compressed file", "uncompressed") if packed else ("file", "in UTF-8")
        if whole and self.source.kind != "files":
            big = max(whole, key=lambda item: item.size)
            lines.append(
                f"not cut   {counted(len(whole), what)}; the largest is {printable(big.uri)} "
                f"({format_bytes(big.size)}): each is one chunk, so split it or store it {plain} if it "
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
            chunks = self.history.chunks.values()
            done = counted(sum(chunk.stats.rows_in for chunk in chunks), "record")
            left = "nothing is left to do" if self.finished else "the run goes on from there"
            lines.append(f"done      {done} in {counted(len(chunks), 'chunk')}: {left}")
        return "\n".join(lines)

    def _waiting(self) -> str:
        """Describe how I/O-bound calls run concurrently."""
        calls = side_by_side(self.spec.fn, self.spec.concurrency)
        told = f", {calls:,} at once in each worker" if calls else ""
        return told if self.spec.rate is None else f"{told}, at most {parse_rate(self.spec.rate)} in all"

    def _part_size(self) -> str:
        return format_bytes(parse_bytes(self.spec.part_size))

    def _chunks(self) -> str:
        weight = self.chunk_weight
        if weight is None:
            return "sized while running, about half a second each"
        unit = "record" if self.source.in_memory else "byte"
        if not isinstance(self.spec.chunk, str) and self.source.kind == "files":
            files = self.spec.chunk or 1
            return f"{counted(files, 'file')} each, {-(-len(self.inputs) // files):,} of them"
        count = "" if self.total is None else f", about {max(1, -(-self.total // weight)):,} of them"
        return f"{counted(weight, unit)} each{count}"


def _left_out(output: str) -> str:
    """Return in words which output of another job is not read."""
    return f"{printable(output)} is the output of another job and is not read: name it too, to read it"


def _replaced(gone: int, new: int) -> list[str]:
    """Return in words that the folder of the inputs may have moved."""
    if not gone:
        return []
    verb = "is" if gone == 1 else "are"
    return [
        f"{counted(gone, 'earlier input')} {verb} gone and {new:,} new: the output holds rows of both; "
        "fresh=True (--fresh) makes it of the new ones only"
    ]
