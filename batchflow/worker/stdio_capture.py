"""What tasks print: gathered in whole lines while they run, to travel with their outcome.

`sys.stdout` and `sys.stderr` of a worker are replaced once, for as long as it lives, by streams that look up
whose lines are gathered just then. So a logging handler made when a module was imported keeps working.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import get_ident
from typing import Any, TextIO

from batchflow.worker.log_records import text_of

LIMIT = 64 << 10
"""Bytes of the lines of one task that are kept."""
RECORDS_LIMIT = 1 << 20
"""Bytes of the log records of one task that are kept, encoded."""


class LineMirror:
    """Where lines stand too, so that they are not lost with the process; this one keeps none."""

    def keep(self, line: bytes) -> None:
        """Keep a line."""

    def forget(self) -> None:
        """Forget all lines: they are on their way."""


class LineBuffer:
    """The lines that are printed from now on, until they are taken.

    A line is what one thread has written up to a line end, so that those of threads do not mix.

    Parameters
    ----------
    mirror
        Where they stand too.
    """

    def __init__(self, mirror: LineMirror | None = None) -> None:
        self._mirror = mirror or LineMirror()
        self._lines: list[bytes] = []
        self._begun: dict[int, bytes] = {}
        """Lines without an end yet, by thread."""
        self._size = self._cut = self._records_size = self._records_cut = 0

    def __bool__(self) -> bool:
        return bool(self._lines or self._begun)

    def write(self, data: bytes) -> None:
        """Take over what this thread writes."""
        thread = get_ident()
        *lines, rest = (self._begun.pop(thread, b"") + data).split(b"\n")
        for line in lines:
            self._add(line)
        if len(rest) > LIMIT:
            self._add(rest)
        elif rest:
            self._begun[thread] = _seen(rest) + b"\r" * rest.endswith(b"\r")

    def _add(self, line: bytes) -> None:
        line = _seen(line)
        size = self._size + len(line) + 1
        if self._cut or size > LIMIT:
            self._cut += 1
            return
        self._size = size
        self._lines.append(line)
        self._mirror.keep(line)

    def add_record(self, line: bytes) -> None:
        """Add a log record, which is one line."""
        size = self._records_size + len(line) + 1
        if self._records_cut or size > RECORDS_LIMIT:
            self._records_cut += 1
            return
        self._records_size = size
        self._lines.append(line)
        self._mirror.keep(line)

    def take(self) -> tuple[str, ...]:
        """Return the lines so far, those without an end too, and begin anew."""
        while self._begun:
            with suppress(KeyError):  # a thread of the function's goes on with it just now
                self._add(self._begun.pop(next(iter(self._begun))))
        lines, cut, records_cut = self._lines, self._cut, self._records_cut
        self._lines, self._size, self._cut, self._records_size, self._records_cut = [], 0, 0, 0, 0
        self._mirror.forget()
        told = [line.decode(errors="backslashreplace") for line in lines]
        if cut:
            told.append(f"(and {cut:,} lines more, which are too much)")
        if records_cut:
            told.append(f"(and {records_cut:,} log records more, which are too much)")
        return tuple(told)


def _seen(line: bytes) -> bytes:
    """Return what a terminal shows of a line that was begun again, as progress bars do."""
    return line.rstrip(b"\r").rpartition(b"\r")[2] if b"\r" in line else line


class _Bytes(io.RawIOBase):
    """What stands behind a `Tap`."""

    def __init__(self, behind: TextIO | None, name: str) -> None:
        self._behind = behind
        self.name = name

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        prints = _now[0]
        if prints is not None:
            prints.write(bytes(data))
        elif self._behind is not None:
            self._behind.write(bytes(data).decode(errors="replace"))
        return len(data)

    def flush(self) -> None:
        if self._behind is not None:
            self._behind.flush()

    def fileno(self) -> int:
        """Return that of the real stream: what is written there, by C code or a child, goes where it went."""
        return super().fileno() if self._behind is None else self._behind.fileno()

    def close(self) -> None:
        """Stay open: it is there for all tasks of a worker."""


class CapturingStream(io.TextIOWrapper):
    """Stands for `sys.stdout` or `sys.stderr`: gathers while lines are gathered, and else passes on."""

    def __init__(self, behind: TextIO | None, name: str) -> None:
        raw: Any = _Bytes(behind, name)  # as Python itself does for its unbuffered streams
        super().__init__(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
        self.behind = behind

    def close(self) -> None:
        """Stay open, as above."""


_now: list[LineBuffer | None] = [None]
"""Whose lines are gathered."""


def current_prints() -> LineBuffer | None:
    """Return where lines are gathered now."""
    return _now[0]


def _gather_no_more() -> None:
    _now[0] = None


os.register_at_fork(after_in_child=_gather_no_more)  # a child that a function makes prints to the real stream


def install() -> None:
    """Put taps into the place of the streams of this process, for good."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, CapturingStream):
            setattr(sys, name, CapturingStream(stream, f"<{name}>"))


@contextmanager
def gathering(prints: LineBuffer) -> Iterator[None]:
    """Gather all that is printed, in a process that does nothing else; what no outcome took along is printed."""
    install()
    _now[0] = prints
    try:
        yield
    finally:
        _gather_no_more()
        _pass_on(prints)


def _pass_on(prints: LineBuffer) -> None:
    for line in map(text_of, prints.take()):
        with suppress(AttributeError, OSError, ValueError):  # there is no such stream, or nobody reads it
            sys.stderr.write(f"{line}\n")


class Gathered:
    """Gathers what is printed inside ``with``, in a process that also does other things; it has taps already."""

    def __init__(self, prints: LineBuffer) -> None:
        self._prints = prints
        self._before: LineBuffer | None = None

    def __enter__(self) -> None:
        self._before, _now[0] = _now[0], self._prints

    def __exit__(self, *_: object) -> None:
        _now[0] = self._before


class _Live:
    """A stream of a terminal at which somebody may sit at a debugger: what is drawn there goes first."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        for clear in drawn:
            clear()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


drawn: list[Callable[[], object]] = []
"""Called before a task of this process writes to the terminal: each takes away what it has drawn."""


class DriverCapture:
    """Gathers what is printed inside ``with`` in the process of the driver, whose streams are its own afterwards.

    Where its input is a terminal nothing is gathered: a debugger talks there. It may stand inside of itself, where
    a task runs a job on the executor that it runs on.

    Parameters
    ----------
    interactive
        Whether a debugger may talk there.
    """

    def __init__(self, *, interactive: bool = True) -> None:
        self._interactive = interactive
        self.prints: LineBuffer = LineBuffer()
        self._gathered = Gathered(self.prints)
        self._real: tuple[Any, Any] = (None, None)
        self._ours: tuple[Any, Any] = (None, None)
        self._moved: list[tuple[Any, Any]] = []
        self._depth = 0

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth > 1:
            return
        real = sys.stdout, sys.stderr
        if real[0] is not self._real[0] or real[1] is not self._real[1] or None in real:
            live = self._interactive and sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
            self._ours = _stand_in(real[0], "stdout", live=live), _stand_in(real[1], "stderr", live=live)
            self._real = real
        sys.stdout, sys.stderr = self._ours
        self._moved = _moved_handlers(real, self._ours)
        self._gathered.__enter__()

    def __exit__(self, kind: object, *_: object) -> None:
        self._depth -= 1
        if self._depth:
            return
        self._gathered.__exit__()
        if kind is not None:
            _pass_on(self.prints)  # no outcome takes it along
        if sys.stdout is self._ours[0]:  # else the function put something of its own there
            sys.stdout = self._real[0]
        if sys.stderr is self._ours[1]:
            sys.stderr = self._real[1]
        for handler, stream in self._moved:
            handler.stream = stream


def _stand_in(stream: Any, name: str, *, live: bool) -> Any:
    return _Live(stream) if live and stream is not None else CapturingStream(stream, f"<{name}>")


def _moved_handlers(real: tuple[Any, Any], ours: tuple[Any, Any]) -> list[tuple[Any, Any]]:
    """Have logging handlers, which know the streams of before, write to those of now."""
    moved = []
    logging = sys.modules.get("logging")
    for reference in list(logging._handlerList) if logging is not None else ():
        handler = reference()
        stream = getattr(handler, "__dict__", {}).get("stream")
        if stream is not None and (stream is real[0] or stream is real[1]):
            handler.stream = ours[0] if stream is real[0] else ours[1]
            moved.append((handler, stream))
    return moved
