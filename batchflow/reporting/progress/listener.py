"""How far a job or a flow is, for whoever looks on, and above that what tasks print; listeners."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from batchflow.core.text import printable
from batchflow.errors import UsageError
from batchflow.events import STEPS, Event, JobEnded, JobStarted, Listener, Printed
from batchflow.reporting.task_output import tagged, write

if TYPE_CHECKING:
    from batchflow.reporting.progress.counters import FlowProgress, JobProgress
    from batchflow.reporting.progress.terminal import ProgressDisplay

DRAW_SECONDS = 0.1
"""Between two drawings, at least;"""
BURST_SECONDS = 1.0
"""but where lines are printed it is drawn again at once, as often in a row as would fit in here."""
LINES = "lines"
"""What ``BATCHFLOW_PROGRESS`` is in a submitted job, whose log is followed elsewhere."""
_WORDS = ("", "off", LINES)
LOG_SECONDS = 10.0
"""Between two lines of a log, and before the first."""
STEP_SECONDS = 0.5
"""What a step of a flow must have taken before it has a line of its own."""


_TURNS = frozenset((JobStarted, Printed, JobEnded))
"""Events after which more is to do than to count; the others come for each chunk."""


class Progress:
    """Shows on standard error how far a job is: share done, time left, rate, failures, workers busy.

    Lines that tasks print are written there too, progress shown or not.

    Parameters
    ----------
    shown
        ``None``: as a line where standard error is a terminal, else as a line of text every ten seconds,
        or as ``BATCHFLOW_PROGRESS`` says: ``off``, or ``lines``, which come every two seconds. ``TQDM_DISABLE``
        of tqdm means off too.
    """

    def __init__(self, shown: bool | None = None) -> None:
        self._place = _place(shown)
        self._screen: ProgressDisplay | None = None
        self._next = 0.0
        """When it may be drawn again,"""
        self._spent = 0.0
        """and until when the drawings are spent that follow printed lines, which took it away."""
        self._count: JobProgress | FlowProgress | None = None

    def __call__(self, event: Event) -> None:
        """Hear one event."""
        if type(event) not in _TURNS:
            if self._count is not None:
                self._count(event)
                self._draw_in_time()
        elif isinstance(event, Printed):
            self._print(event)
        elif isinstance(event, JobStarted) and self._place:
            self._begin(event)
        elif isinstance(event, JobEnded) and self._count is not None:
            self._count(event)
            self._end()

    @property
    def counts(self) -> bool:
        """Whether it shows anything of what it hears, beside what tasks print."""
        return self._count is not None

    def _begin(self, event: JobStarted) -> None:
        from batchflow.reporting.progress.counters import (  # while workers start, and where somebody looks
            FlowProgress,
            JobProgress,
        )

        self._count = FlowProgress() if event.unit == STEPS else JobProgress()
        self._count(event)
        if event.types:
            write([f"batchflow: types {printable(event.types)}"])
        if self._place == "log":
            self._next = time.monotonic() + LOG_SECONDS  # nothing of it is needed before
        else:
            self._draw()

    def _end(self) -> None:
        screen, self._screen = self._screen, None
        if screen is not None and self._count is not None:
            screen.close(self._count.line)
        self._count = None

    def _draw_in_time(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + DRAW_SECONDS
            self._draw()

    def _draw(self) -> None:
        if self._count is None:
            return
        if self._screen is None:
            from batchflow.reporting.progress.terminal import screen_of  # as above

            self._screen = screen_of(self._place, LOG_SECONDS)
        self._screen.draw(self._count.line, self._count.rows(self._screen.rows, STEP_SECONDS))

    def _print(self, event: Printed) -> None:
        lines = [printable(line.expandtabs()) for line in tagged(event)]
        if self._screen is None:
            write(lines)
        else:
            self._screen.write(lines)
            now = time.monotonic()
            if self._spent <= now + BURST_SECONDS:  # else it comes with the next event
                self._spent = max(self._spent, now) + DRAW_SECONDS
                self._draw()

    def of_job(self, step: str) -> Listener:
        """Return a listener for a step of a flow that is a whole job."""
        count = self._count.job(step) if self._count is not None else None

        def hear(event: Event) -> None:
            if isinstance(event, Printed):
                self._print(event._replace(place=f"{step}: {event.place}"))
            elif count is not None:
                count(event)
                self._draw_in_time()

        return hear


def _place(shown: bool | None) -> str:
    """Return where progress is shown, as `screen_of` knows it; nothing: nowhere."""
    word = os.environ.get("BATCHFLOW_PROGRESS", "")
    if shown is None and word not in _WORDS:
        message = f"BATCHFLOW_PROGRESS={word!r} must be 'off' or 'lines'"
        raise UsageError(message)
    off = shown is None and (word == "off" or os.environ.get("TQDM_DISABLE", "0") != "0")
    if shown is False or off or sys.stderr is None:
        return ""
    if _is_notebook() and not _has_widgets():
        return "cell"
    if shown or (sys.stderr.isatty() and word != LINES) or _is_notebook():
        return "terminal"
    return "followed" if word == LINES else "log"


def _is_notebook() -> bool:
    """Whether this is the kernel of a notebook, whose standard error is no terminal."""
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = get_ipython() if get_ipython else None
    return shell is not None and "IPKernelApp" in shell.config


def _has_widgets() -> bool:
    """Whether a notebook can draw a line again; without, it would show control characters."""
    from importlib.util import find_spec

    return find_spec("ipywidgets") is not None
