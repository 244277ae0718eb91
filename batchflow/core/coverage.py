"""Which ranges of an input are done and which are missing: pure arithmetic over chunks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence

from batchflow.core.chunks import Chunk, InputFile, Key, Span

Range = tuple[int, int | None]
"""First unit and the one behind the last; ``None``: to the end."""


class Coverage:
    """The parts of some inputs that chunks cover.

    Parameters
    ----------
    chunks
        Done ones; of a chunk that was halved, any of its parts.
    complete
        Identities of inputs that a finished run covered to their ends.
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
        """Return the ranges of an input that are covered, in order."""
        return sorted(self._ranges.get(item.identity, ()), key=lambda one: one[0])

    def gaps(self, item: InputFile) -> list[Range] | None:
        """Return what is missing of an input that is covered in part, in order; ``None``: all of it.

        The last gap has no end unless the input is complete: whether anything is in it, only the input tells.
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
        """Yield the missing parts of chunks that were halved."""
        for done in self._halved.values():
            for skip, take in missing_windows(done):
                yield done[0]._replace(skip=skip, take=take)


def missing_windows(done: Sequence[Chunk]) -> Iterator[tuple[int, int]]:
    """Yield the parts, as first record and count, that are missing of a halved chunk of which some are done."""
    at = 0
    for chunk in sorted(done, key=lambda one: one.skip):
        if chunk.skip > at:
            yield at, chunk.skip - at
        at = max(at, chunk.skip + (chunk.take or 0))
    rest = (done[0].of or 0) - at
    if rest > 0:
        yield at, rest


def key_of(chunk: Chunk, place: int) -> Key:
    """Return the key of a chunk whose first input stands at a place of the list of inputs."""
    key: Key = (place, chunk.spans[0].start)
    return key if chunk.of is None else (*key, chunk.skip)


NOTHING = Coverage()
"""Of a run from the start."""
