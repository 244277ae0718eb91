"""One line that tells how far a job is; a listener."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from batchflow.events import ChunkSettled, Event, JobEnded, JobStarted, TaskEnded

LINES = "lines"
"""What ``BATCHFLOW_PROGRESS`` is in a submitted job, whose log is followed elsewhere."""

MARK = "batchflow progress: "
"""What a line of progress in a log begins with."""

_PAUSE = 2.0
"""Seconds between two lines in a log, at least."""

_SHARE = 0.01
"""Of the time gone by, before another line is written: a log does not grow with how long a job takes."""


class Progress:
    """A tqdm line on standard error: share done, rate, time left, failures.

    Parameters
    ----------
    shown
        ``None``: only where standard error is a terminal; as lines of a log where ``BATCHFLOW_PROGRESS``
        asks for them.
    """

    def __init__(self, shown: bool | None = None) -> None:
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._lines = shown is None and not self._shown and os.environ.get("BATCHFLOW_PROGRESS") == LINES
        self._bar: Any = None
        self._failed = 0

    def __call__(self, event: Event) -> None:
        """Hear one event."""
        if isinstance(event, JobStarted) and (self._shown or self._lines):
            self._open(event)
        elif self._bar is not None:
            self._draw(event)

    def _draw(self, event: Event) -> None:
        if isinstance(event, ChunkSettled):
            self._failed += len(event.failures)
            if self._failed:
                self._bar.set_postfix_str(f"{self._failed:,} failed", refresh=False)
        elif isinstance(event, TaskEnded) and not event.again:
            self._bar.update(event.weight)
        elif isinstance(event, JobEnded):
            if event.complete and self._bar.total is not None:
                self._bar.update(self._bar.total - self._bar.n)  # weights are estimates
            self._bar.close()

    def _open(self, event: JobStarted) -> None:
        from tqdm.auto import tqdm  # 70 ms, needed only where somebody looks

        in_bytes = event.unit == "bytes"
        self._bar = tqdm(
            total=event.total,
            initial=event.done,
            unit="B" if in_bytes else f" {event.unit}",
            unit_scale=event.unit != "steps",
            dynamic_ncols=not self._lines,
            ncols=_COLUMNS if self._lines else None,
            file=_Lines() if self._lines else sys.stderr,
            leave=not self._lines,
            miniters=1,
        )


_COLUMNS = 78


class _Lines:
    """Where a bar is drawn that nobody sees moving: now and then, each time as a line of its own."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._next = 0.0

    def write(self, text: str) -> None:
        """Write what a terminal would show now."""
        now = time.monotonic()
        text = text.strip("\r\n ")
        if text and now >= self._next:
            self._next = now + max(_PAUSE, _SHARE * (now - self._began))
            sys.stderr.write(f"{MARK}{text}\n")

    def flush(self) -> None:
        """Hand on what is written."""
        sys.stderr.flush()
