"""Completion order inside, input order outside."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, NamedTuple

from batchflow.model import Chunk, Failure, Key, Stats, Task


class Settled(NamedTuple):
    """A chunk that came to its end."""

    task: Task
    """The last attempt at it."""
    stats: Stats = Stats()
    failures: tuple[Failure, ...] = ()
    payload: Any = None
    counted: bool = True
    """Whether ``stats.spans`` tell how many records the chunk holds."""

    @property
    def key(self) -> Key:
        """Its place in the input."""
        return self.task.key

    @property
    def chunk(self) -> Chunk:
        """The chunk."""
        return self.task.chunk


class Sequencer:
    """Gives chunks out in the order of their keys, however they come in.

    A chunk is held until every chunk before it is settled; those are the ones expected, and the ones
    not drawn yet, which begin at the cursor's frontier.
    """

    def __init__(self) -> None:
        self._expected: list[Key] = []
        self._gone: set[Key] = set()
        self._held: list[tuple[Key, Settled]] = []

    def __len__(self) -> int:
        return len(self._held)

    def expect(self, key: Key) -> None:
        """Hold back everything behind a key until it is settled or split."""
        heapq.heappush(self._expected, key)

    def split(self, key: Key, into: list[Key]) -> None:
        """Expect several keys in the place of one."""
        self._gone.add(key)
        for part in into:
            self.expect(part)

    def settle(self, settled: Settled) -> None:
        """Take over a chunk that came to its end."""
        self._gone.add(settled.key)
        heapq.heappush(self._held, (settled.key, settled))

    def release(self, frontier: Key) -> Iterator[Settled]:
        """Yield, in order, what nothing can come before any more."""
        while self._expected and self._expected[0] in self._gone:
            self._gone.discard(heapq.heappop(self._expected))
        before = min(frontier, self._expected[0]) if self._expected else frontier
        while self._held and self._held[0][0] < before:
            yield heapq.heappop(self._held)[1]


class Numbering:
    """Counts the records of each input through its chunks, in input order."""

    def __init__(self) -> None:
        self._uri = ""
        self._used: int | None = 0

    def number(self, settled: Settled) -> Settled:
        """Return a chunk whose failures have the numbers of their records, counted from 1.

        Where a chunk before was lost before its records could be counted, numbers stay unknown.
        """
        counts = {count.uri: count.positions for count in settled.stats.spans}
        failures: list[Failure] = []
        waiting = list(settled.failures)
        for span in settled.chunk.spans:
            uri = span.input.uri
            if uri != self._uri or (span.start == 0 and settled.chunk.skip == 0):
                self._uri, self._used = uri, 0
            mine = [failure for failure in waiting if failure.source == uri]
            waiting = [failure for failure in waiting if failure.source != uri] if mine else waiting
            failures.extend(self._numbered(failure) for failure in mine)
            known = settled.counted and self._used is not None
            self._used = (self._used or 0) + counts.get(uri, 0) if known else None
        return settled._replace(failures=(*failures, *waiting))

    def _numbered(self, failure: Failure) -> Failure:
        if failure.record is None or self._used is None:
            return failure._replace(record=None)
        return failure._replace(record=failure.record + self._used + 1)
