"""Finished and missing ranges of inputs: pure arithmetic over chunks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence

from batchflow.core.chunks import Chunk, InputFile, Key, Span

Range = tuple[int, int | None]
"""First unit and end (exclusive) of a range; ``None``: end of the input."""


class Coverage:
    """Ranges of inputs that chunks cover.

    Parameters
    ----------
    chunks
        Finished chunks; of a halved chunk, any of its parts.
    complete
        Identities of inputs that a finished run covered completely.
    """

    def __init__(self, chunks: Iterable[Chunk] = (), complete: Container[str] = ()) -> None:
        self._complete = complete
        self._ranges: dict[str, list[Range]] = defaultdict(list)
        self._halved: dict[tuple[Span, ...], list[Chunk]] = defaultdict(list)
        for chunk in chunks:
            if chunk.of is None:
                self._cover(chunk.spans)
            else:
                self._halved[chunk.spans].append(chunk)
        for spans in self._halved:
            self._cover(spans)

    def _cover(self, spans: Iterable[Span]) -> None:
        for span in spans:
            self._ranges[span.input.identity].append((span.start, span.stop))

    def ranges(self, item: InputFile) -> list[Range]:
        """Return the covered ranges of an input, in order."""
        return sorted(self._ranges.get(item.identity, ()), key=lambda one: one[0])

    def gaps(self, item: InputFile) -> list[Range] | None:
        """Return the missing ranges of a partly covered input, in order; ``None``: all of it is missing.

        The last gap has no end unless the input is complete: only the input shows whether it contains data.
        """
        if item.identity not in self._ranges:
            return None
        gaps: list[Range] = []
        at = 0
        for start, stop in self.ranges(item):
            if start > at:
                gaps.append((at, start))
            if stop is None:
                return gaps
            at = stop
        return gaps if item.identity in self._complete else [*gaps, (at, None)]

    def leftovers(self) -> Iterator[Chunk]:
        """Yield the missing parts of halved chunks."""
        for done in self._halved.values():
            for skip, take in missing_windows(done):
                yield done[0]._replace(skip=skip, take=take)


def missing_windows(done: Sequence[Chunk]) -> Iterator[tuple[int, int]]:
    """Yield the missing parts of a partly finished halved chunk, as first record and count."""
    at = 0
    for chunk in sorted(done, key=lambda one: one.skip):
        if chunk.skip > at:
            yield at, chunk.skip - at
        at = max(at, chunk.skip + (chunk.take or 0))
    rest = (done[0].of or 0) - at
    if rest > 0:
        yield at, rest


def key_of(chunk: Chunk, place: int) -> Key:
    """Return the key of a chunk whose first input has this index in the list of inputs."""
    key: Key = (place, chunk.spans[0].start)
    return key if chunk.of is None else (*key, chunk.skip)


NOTHING = Coverage()
"""Coverage of a run that starts from scratch."""
