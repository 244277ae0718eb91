"""Where progress is shown: a line of a terminal or notebook that is drawn again, or lines of a log."""

from __future__ import annotations

import importlib
import os
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TextIO

from batchflow.core.text import printable
from batchflow.reporting.progress.counters import ProgressLine
from batchflow.reporting.task_output import write
from batchflow.worker.stdio_capture import drawn

MARK = "batchflow progress: "
"""What a line of progress in a log begins with."""

FOLLOWED_SECONDS = 2.0
"""Between two lines of a log that somebody follows from elsewhere."""
LOG_SHARE = 0.01
"""Of the time gone by, before another line is written: a log does not grow with how long a job takes."""
CELL_SECONDS = 2.0
"""Before the first line in a cell of a notebook without widgets."""
INDENT = 2


class ProgressDisplay:
    """Shows progress; this one shows nothing of it."""

    rows = 0
    """Lines below the first one that there is room for."""

    def draw(self, line: ProgressLine, rows: Sequence[tuple[str, ProgressLine]]) -> None:
        """Show how far it is, and lines with names below."""

    def write(self, lines: Sequence[str]) -> None:
        """Write lines that stay."""
        write(lines)

    def close(self, line: ProgressLine) -> None:
        """Show how far it came, and leave the place to others."""


class LogDisplay(ProgressDisplay):
    """Lines that come now and then.

    Parameters
    ----------
    pause
        Seconds between two of them, at least.
    """

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._began = time.monotonic()
        self._next = 0.0

    def draw(self, line: ProgressLine, rows: Sequence[tuple[str, ProgressLine]]) -> None:
        """Write a line if it is time for one."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + max(self._pause, LOG_SHARE * (now - self._began))
            write([f"{MARK}{_plain(line)}"])


class Cell(ProgressDisplay):
    """Plain lines in a cell of a notebook without widgets: few, and one at the end."""

    def __init__(self) -> None:
        self._pause = CELL_SECONDS
        self._next = time.monotonic() + self._pause

    def draw(self, line: ProgressLine, rows: Sequence[tuple[str, ProgressLine]]) -> None:
        """Write a line if it is time for one; each pause is twice as long as the one before."""
        now = time.monotonic()
        if now >= self._next:
            self._pause *= 2
            self._next = now + self._pause
            write([_plain(line)])

    def close(self, line: ProgressLine) -> None:
        """Write how far it came."""
        write([_plain(line)])


def _plain(line: ProgressLine) -> str:
    return " ".join(filter(None, (line.share.strip(), line.text)))


def screen_of(place: str, pause: float) -> ProgressDisplay:
    """Return where progress is shown.

    Parameters
    ----------
    place
        ``"terminal"``, ``"log"``, ``"followed"``: a log, from elsewhere, ``"cell"``: a notebook without widgets.
    pause
        Seconds between two lines of a log that nobody follows.
    """
    if place == "terminal":
        return TerminalDisplay()
    if place == "cell":
        return Cell()
    return LogDisplay(FOLLOWED_SECONDS if place == "followed" else pause)


class _DisplayFrame:
    """A stream that holds a drawing until it is whole, so that the message of Ctrl-C does not come in between."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._held: list[str] | None = None

    def __enter__(self) -> None:
        self._held = []

    def __exit__(self, *_: object) -> None:
        text, self._held = "".join(self._held or ()), None
        with suppress(OSError, ValueError):  # nobody looks any more
            self._stream.write(text)
            self._stream.flush()

    def write(self, text: str) -> None:
        """Write, or hold."""
        if self._held is None:
            self._stream.write(text)
        else:
            self._held.append(text)

    def flush(self) -> None:
        """Hand on what is not held."""
        if self._held is None:
            self._stream.flush()

    def __eq__(self, other: object) -> bool:
        return other is self or other is self._stream  # so tqdm knows what else is drawn there

    def __hash__(self) -> int:
        return hash(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class TerminalDisplay(ProgressDisplay):
    """A line of tqdm, on standard error or in a notebook, with lines for the steps of a flow below it."""

    def __init__(self) -> None:
        kind = _kind()
        self._is_plain = not any("notebook" in base.__module__ for base in kind.__mro__)
        self._kind = kind
        self._frame = _DisplayFrame(sys.stderr)
        self._bar: Any = None
        self._drawn = 0
        """Lines below, as they are."""
        self._is_drawn = False
        self.rows: int = _rows() if self._is_plain else 0
        drawn.append(self.clear)

    def draw(self, line: ProgressLine, rows: Sequence[tuple[str, ProgressLine]]) -> None:
        """Draw the lines anew."""
        if self._bar is None:
            self._bar = self._begun(line)
        bar = self._bar
        bar.n, bar.total, bar.told = line.done, line.total, line.text
        bar.bar_format = _WITHOUT_SHARE if line.total is None else _FORMAT
        with self._frame:
            bar.refresh()
            for at, (name, row) in enumerate(rows):
                self._show(at, self._row(name, row))
            for at in range(len(rows), self._drawn):
                self._show(at, "")
        self._drawn = len(rows)
        self._is_drawn = True

    def _begun(self, line: ProgressLine) -> Any:
        """Return a line of tqdm; a notebook asks for the total when it begins."""
        differs: dict[str, Any] = {"leave": True}
        if self._is_plain:
            differs = {"leave": None, "delay": 1, "file": self._frame}
        bar = self._kind(total=line.total, dynamic_ncols=True, disable=False, **differs)
        bar.delay = 0  # only its first drawing was to wait, which knows nothing of our text
        return bar

    def _row(self, name: str, line: ProgressLine) -> str:
        share = f" {line.share}|{{bar}}|" if line.total else ""
        told = printable(f"{' ' * INDENT}{name}:").replace("{", "{{").replace("}", "}}")
        text: str = self._bar.format_meter(
            line.done,
            line.total or 1,
            1,
            ncols=self._columns,
            ascii=self._bar.ascii,
            bar_format=f"{told}{share} {line.text}" + ("" if line.total else " {bar:0}"),
        )
        return text

    @property
    def _columns(self) -> int:
        size = self._bar.dynamic_ncols
        return (size(self._bar.fp)[0] if size else None) or 80

    def _show(self, at: int, text: str) -> None:
        """Draw a line below the first one; as wide as the terminal, so that nothing of an older one is left."""
        from tqdm.utils import disp_len

        text += " " * (self._columns - disp_len(text))
        with self._bar.get_lock():
            self._bar.display(text, pos=abs(self._bar.pos) + at + 1)

    def clear(self) -> None:
        """Take all lines away until they are drawn again."""
        if not self._is_drawn:
            return
        self._is_drawn = False
        with self._frame:
            for at in range(self._drawn):
                self._show(at, "")
            if self._is_plain:
                self._bar.clear()
        self._drawn = 0

    def write(self, lines: Sequence[str]) -> None:
        """Write lines above."""
        self.clear()
        with type(self._bar).external_write_mode(file=sys.stderr):  # other lines of tqdm there may be, too
            write(lines)

    def close(self, line: ProgressLine) -> None:
        """Leave the first line as it is at the end, and the next one empty."""
        drawn.remove(self.clear)
        self.draw(line, ())
        self._bar.close()
        if line.failed and hasattr(self._bar, "disp"):  # a notebook's bar, which turns green once it is full
            self._bar.disp(bar_style="danger", check_delay=False)


_FORMAT = "{percentage:3.0f}%|{bar}| {told}"
_WITHOUT_SHARE = "{told} {bar}"  # which is empty then, and as wide as the line


def _kind() -> Any:
    """Return the kind of line that tqdm has for this place; loaded, in 30 ms, only where somebody looks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a notebook without ipywidgets, which shows lines of text then
        module = importlib.import_module("tqdm.auto" if "IPython" in sys.modules else "tqdm")

    class Bar(module.tqdm):  # type: ignore[name-defined, misc]
        """With a text of ours behind it."""

        monitor_interval = 0  # it is drawn by us, so that no thread need look after it
        told = ""

        @property
        def format_dict(self) -> Any:
            return {**super().format_dict, "told": self.told}

    return Bar


def _rows() -> int:
    """Return how many lines the terminal has room for, below the first one."""
    try:
        return max(0, min(_MOST, os.get_terminal_size(2).lines - 2))
    except OSError:
        return 0


_MOST = 5
