"""Output of tasks on the driver: lines prefixed with their origin, and a log file."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import accumulate, takewhile
from typing import IO, TYPE_CHECKING

from batchflow.core.chunks import Chunk
from batchflow.core.work import CombineTables, CountRecords, Task, WorkItem
from batchflow.events import Event, JobEnded, Printed

if TYPE_CHECKING:
    from pathlib import Path

OUTPUT_LOG = "output.log"
"""Name of the log, next to the ledger."""
LARGEST = 1_000_000
"""Maximum bytes of the log on an object store, where it is rewritten: the last ones."""


def place_of(work: WorkItem) -> str:
    """Describe the origin of some work in a few words."""
    task = work.task if isinstance(work, CountRecords) else work
    if isinstance(task, Task):
        tried = f", try {task.attempt}" if task.attempt > 1 else ""
        return f"{_place_of_chunk(task.chunk)}{tried}"
    return "combine" if isinstance(task, CombineTables) else "assemble"


def _place_of_chunk(chunk: Chunk) -> str:
    span = chunk.spans[0]
    whole = span.whole or (span.start, span.stop) == (0, span.input.size)
    place = span.input.uri if whole else f"{span.input.uri} {span.start}:{span.stop}"
    more = f" and {len(chunk.spans) - 1:,} more" if len(chunk.spans) > 1 else ""
    return f"{place}{more}{_part_of(chunk)}"


def _part_of(chunk: Chunk) -> str:
    """Return which records of its span are those of a chunk that was halved."""
    if chunk.take is None:
        return ""
    first, last = chunk.skip + 1, chunk.skip + chunk.take
    return f" record {first}" if first == last else f" records {first}-{last}"


def tagged(event: Printed) -> list[str]:
    """Return lines prefixed with their origin."""
    return [f"[{event.place}] {line}" for line in event.lines]


def write(lines: Sequence[str]) -> None:
    """Write lines to standard error."""
    with suppress(AttributeError, OSError, ValueError):  # there is none, or nobody reads it: no fault of the job
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        sys.stderr.flush()


class OutputLog:
    """A listener that appends what tasks print to a file, made when there is something to keep.

    Parameters
    ----------
    path
        Of the file; its folder is there before anything is printed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None

    def __call__(self, event: Event) -> None:
        """Handle one event."""
        if isinstance(event, Printed):
            with suppress(OSError):  # a full disk is told by what must be written; the lines are shown anyway
                self._keep(event)
        elif isinstance(event, JobEnded) and self._file is not None:
            with suppress(OSError):
                self._file.close()
            self._file = None

    def _keep(self, event: Printed) -> None:
        if self._file is None:
            self._file = self._path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")
        self._file.write("".join(f"{line}\n" for line in tagged(event)))
        self._file.flush()


class OutputTail:
    """A listener that keeps the end of what tasks print in memory, for a store where no object can grow.

    Parameters
    ----------
    earlier
        Returns what earlier runs left; raises `OSError` where there is nothing.
    """

    def __init__(self, earlier: Callable[[], bytes]) -> None:
        self._earlier = earlier
        self._lines: deque[bytes] = deque()
        self._nbytes = 0
        self._is_whole = True

    def __call__(self, event: Event) -> None:
        """Handle one event."""
        if isinstance(event, Printed):
            lines = [f"{line}\n".encode(errors="backslashreplace") for line in tagged(event)]
            self._lines += lines
            self._nbytes += sum(map(len, lines))
            while self._nbytes > LARGEST:
                self._nbytes -= len(self._lines.popleft())
                self._is_whole = False

    def papers(self) -> dict[str, bytes]:
        """Return the file, by its name, if anything was printed; it begins with what earlier runs left."""
        if not self._lines:
            return {}
        before: list[bytes] = []
        with suppress(OSError):
            before = self._earlier().splitlines(keepends=True)
        room = LARGEST - self._nbytes if self._is_whole else 0
        kept = list(takewhile(lambda total: total <= room, accumulate(map(len, reversed(before)))))
        return {OUTPUT_LOG: b"".join([*before[len(before) - len(kept) :], *self._lines])}
