"""What sources made of files have in common: paths that are listed, files that are cut or packed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import TYPE_CHECKING

from batchflow.core.chunks import Chunk, InputFile, Span
from batchflow.core.coverage import NOTHING, Coverage, Range
from batchflow.core.outcomes import Failure
from batchflow.io.sources.base import ChunkCursor, Listing, Source, is_rest

if TYPE_CHECKING:
    from batchflow.io.sources.splitter import Cuts
    from batchflow.io.stores import Place


@dataclass(frozen=True)
class FileSource(Source):
    """A source made of files: paths, folders, globs or URIs."""

    paths: tuple[str, ...] = dataclass_field(default=())
    per_chunk: int | None = dataclass_field(default=None, kw_only=True)
    """Files of each chunk, where each is a record and the job counts them."""

    def inputs(self) -> list[InputFile]:
        """List the files that the paths stand for, in order, each once."""
        return self.listed(None).inputs

    def listed(self, output: Place | None) -> Listing:
        """List the files that the paths stand for, without those of an output."""
        from batchflow.io.sources.listing import list_inputs

        return list_inputs(self.paths, output)

    def described(self, uri: str) -> InputFile | None:
        """Return a file as it is now, ``None`` if it is gone."""
        from batchflow.io.sources.listing import describe

        return describe(uri)

    def needs(self, span: Span) -> list[tuple[int, int]]:
        """Return all of a file, where the source knows no better."""
        return [(0, span.input.size)]

    def cursor(self, inputs: Sequence[InputFile], heavy: int | None, done: Coverage = NOTHING) -> ChunkCursor:
        """Return a cursor that cuts big files and packs small ones."""
        from batchflow.io.sources.splitter import FileCursor

        return FileCursor(self, inputs, heavy, done)

    def select(self, chunk: Chunk, failure: Failure) -> Chunk:
        """Return a chunk of one record, by its place where the file was cut there, else by its number."""
        number = failure.record or 0
        rest = is_rest(failure)
        if chunk.of is not None:
            (span,) = chunk.spans
            left = (chunk.take or 0) - number
            is_last = chunk.skip + (chunk.take or 0) == chunk.of  # where more may be than could be read
            return Chunk((span,), 1, chunk.skip + number, 1 if not rest else None if is_last else left)
        span = next(span for span in chunk.spans if span.input.uri == failure.source)
        if span.whole or rest or failure.start is None or failure.stop is None:
            return Chunk((span,), 1, number, None if rest else 1)
        return Chunk((span._replace(start=failure.start, stop=failure.stop),), 1)

    def selection(self, chunk: Chunk, failures: Sequence[Failure]) -> Chunk:
        """Return a chunk of some records; of a file that was cut, of the range that they are in."""
        selected = super().selection(chunk, failures)
        if chunk.of is not None or len(chunk.spans) > 1:
            return selected
        (span,), start, stop = selected.spans, failures[0].start, failures[-1].stop
        if span.whole or span.only is None or start is None or stop is None:
            return selected
        only = tuple(number - span.only[0] for number in span.only)
        return selected._replace(spans=(span._replace(start=start, stop=stop, only=only),))

    def parts(self, chunk: Chunk) -> Sequence[Chunk]:
        """Return two parts of a chunk: some of its files, or of its one file what is before and behind a cut."""
        if len(chunk.spans) > 1 or chunk.spans[0].only is not None:
            return super().parts(chunk)
        from batchflow.io.sources.splitter import halves

        return halves(self, chunk)

    def record_weight(self, inputs: Sequence[InputFile]) -> float:
        """Return the mean weight of the records in the first block of the first file that has any."""
        from batchflow.io.sources.line_reader import LOOK_BYTES, BoundedReadError, bounded_reads
        from batchflow.io.sources.splitter import processing_weight

        for item in inputs:
            try:
                with bounded_reads():
                    block = next(iter(self.blocks(Span(item), None)))
            except BoundedReadError:
                return min(processing_weight(item), LOOK_BYTES)  # records are at least as large
            except Exception:
                continue
            if block.end and block.nbytes:
                return block.nbytes / block.end
        return 1.0

    def holds_one(self, span: Span) -> bool:
        """Whether a record begins in a span that cannot be cut any more."""
        del span
        return True

    def cuts(self, item: InputFile, gap: Range = (0, None)) -> Cuts:
        """Return a function that cuts span after span off a range of an input that is worth cutting."""
        from batchflow.io.sources.splitter import ByteSplitter

        return ByteSplitter(item, gap).cut
