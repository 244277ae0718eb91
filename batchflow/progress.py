"""One line that tells how far a job is; a listener."""

from __future__ import annotations

import sys
from typing import Any

from batchflow.events import ChunkSettled, Event, JobEnded, JobStarted, TaskEnded


class Progress:
    """A tqdm line on standard error: share done, rate, time left, failures.

    Parameters
    ----------
    shown
        ``None``: only where standard error is a terminal.
    """

    def __init__(self, shown: bool | None = None) -> None:
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._bar: Any = None
        self._failed = 0

    def __call__(self, event: Event) -> None:
        """Hear one event."""
        if isinstance(event, JobStarted) and self._shown:
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
            dynamic_ncols=True,
            file=sys.stderr,
            leave=True,
            miniters=1,
        )
