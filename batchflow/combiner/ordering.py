"""Conversion from completion order to input order."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from batchflow.core.chunks import Key
from batchflow.core.outcomes import Failures, SettledChunk


class ReorderBuffer:
    """Buffer that releases chunks in the order of their keys.

    A chunk is held until every chunk before it is settled; those are the ones expected, and the ones
    not drawn yet, which begin at the cursor's frontier.
    """

    def __init__(self) -> None:
        self._expected: list[Key] = []
        self._gone: set[Key] = set()
        self._held: list[tuple[Key, SettledChunk]] = []
        self.nbytes: int = 0
        """Bytes of the buffered rows."""

    def __len__(self) -> int:
        return len(self._held)

    def expect(self, key: Key) -> None:
        """Hold back all later keys until a key is settled or split, even if it was settled before."""
        self._gone.discard(key)
        heapq.heappush(self._expected, key)

    def split(self, key: Key, into: list[Key]) -> None:
        """Replace an expected key by several."""
        self._gone.add(key)
        for part in into:
            self.expect(part)

    def settle(self, settled: SettledChunk) -> None:
        """Add a finished chunk."""
        self._gone.add(settled.key)
        self.nbytes += settled.stats.held
        heapq.heappush(self._held, (settled.key, settled))

    def release(self, frontier: Key) -> Iterator[SettledChunk]:
        """Yield, in order, the chunks that no pending key precedes; the consumer may expect more keys."""
        while self._held and self._held[0][0] < min(frontier, self._first_expected(frontier)):
            settled = heapq.heappop(self._held)[1]
            self.nbytes -= settled.stats.held
            yield settled

    def _first_expected(self, default: Key) -> Key:
        while self._expected and self._expected[0] in self._gone:
            self._gone.discard(heapq.heappop(self._expected))
        return self._expected[0] if self._expected else default


class RecordNumbering:
    """Numbering of the records of each input across its chunks, in input order."""

    def __init__(self) -> None:
        self._used: dict[str, int | None] = {}
        """Record numbers used so far in each input of the current chunk, ``None`` if unknown."""

    def number(self, settled: SettledChunk) -> SettledChunk:
        """Return a chunk whose failures have record numbers, counted from 1.

        Where a chunk before was lost before its records could be counted, numbers stay unknown.
        """
        chunk = settled.chunk
        if chunk.skip == 0:  # no later part of a halved chunk, which counts on in its input
            self._used = {
                span.input.uri: self._used.get(span.input.uri, 0) if span.start else 0 for span in chunk.spans
            }
        if settled.failures:
            settled = settled._replace(failures=self._numbered(Failures.of(settled.failures)))
        for count in settled.stats.spans:
            used = self._used.get(count.uri)
            self._used[count.uri] = None if used is None else used + count.positions
        if not settled.counted:
            self._used = dict.fromkeys(self._used)
        return settled

    def _numbered(self, failures: Failures) -> Failures:
        sources = failures.column("source")
        used = {source: self._used.get(source) for source in set(sources)}
        numbers = [
            None if record is None or (before := used[source]) is None else record + before + 1
            for source, record in zip(sources, failures.column("record"), strict=True)
        ]
        return failures.replace(record=numbers)
