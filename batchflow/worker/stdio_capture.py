"""Capture of a task's standard output and error, in whole lines that travel with its outcome.

`sys.stdout` and `sys.stderr` of a worker are replaced once for its lifetime, by streams that look up the
current buffer. A logging handler created when a module was imported therefore keeps working.
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
"""Maximum bytes of printed lines kept per task."""
RECORDS_LIMIT = 1 << 20
"""Maximum bytes of encoded log records kept per task."""


class LineMirror:
    """Second copy of captured lines that survives the process; this base class stores none."""

    def keep(self, line: bytes) -> None:
        """Store a line."""

    def forget(self) -> None:
        """Discard all lines, as the outcome now carries them."""


class LineBuffer:
    """Buffer of printed lines.

    A line is what one thread writes up to a line end, so lines of different threads do not mix.

    Parameters
    ----------
    mirror
        Second copy of the lines.
    """

    def __init__(self, mirror: LineMirror | None = None) -> None:
        self._mirror = mirror or LineMirror()
        self._lines: list[bytes] = []
        self._begun: dict[int, bytes] = {}
        """Unfinished lines, by thread."""
        self._size = self._cut = self._records_size = self._records_cut = 0

    def __bool__(self) -> bool:
        return bool(self._lines or self._begun)

    def write(self, data: bytes) -> None:
        """Accept output of the current thread."""
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
        """Add a log record, encoded as one line."""
        size = self._records_size + len(line) + 1
        if self._records_cut or size > RECORDS_LIMIT:
            self._records_cut += 1
            return
        self._records_size = size
        self._lines.append(line)
        self._mirror.keep(line)

    def take(self) -> tuple[str, ...]:
        """Return and clear the lines so far, including unfinished ones."""
        while self._begun:
            with suppress(KeyError):  # a thread started by the function may continue the line right now
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
    """Return what a terminal shows of a line with carriage returns, as progress bars print."""
    return line.rstrip(b"\r").rpartition(b"\r")[2] if b"\r" in line else line


class _Bytes(io.RawIOBase):
    """Raw byte stream of a `CapturingStream`."""

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
        """Return the descriptor of the real stream: output of C code and child processes still goes there."""
        return super().fileno() if self._behind is None else self._behind.fileno()

    def close(self) -> None:
        """Stay open: all tasks of a worker share the stream."""


class CapturingStream(io.TextIOWrapper):
    """Replacement for `sys.stdout` or `sys.stderr` that writes to the current buffer or else to the stream."""

    def __init__(self, behind: TextIO | None, name: str) -> None:
        raw: Any = _Bytes(behind, name)  # the construction that Python uses for its unbuffered streams
        super().__init__(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
        self.behind = behind

    def close(self) -> None:
        """Stay open: all tasks of a worker share the stream."""


_now: list[LineBuffer | None] = [None]
"""Current buffer."""


def current_prints() -> LineBuffer | None:
    """Return the current buffer."""
    return _now[0]


def _gather_no_more() -> None:
    _now[0] = None


os.register_at_fork(after_in_child=_gather_no_more)  # a child that the function forks prints to the real stream


def install() -> None:
    """Replace the standard streams of this process permanently."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, CapturingStream):
            setattr(sys, name, CapturingStream(stream, f"<{name}>"))


@contextmanager
def gathering(prints: LineBuffer) -> Iterator[None]:
    """Capture all output of a worker process; lines that no outcome carried are printed at the end."""
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
    """Context manager that captures output in a process with other activity; its streams are already replaced."""

    def __init__(self, prints: LineBuffer) -> None:
        self._prints = prints
        self._before: LineBuffer | None = None

    def __enter__(self) -> None:
        self._before, _now[0] = _now[0], self._prints

    def __exit__(self, *_: object) -> None:
        _now[0] = self._before


class _Live:
    """Terminal stream that may be used by a debugger: the progress display is cleared before each write."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        for clear in drawn:
            clear()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


drawn: list[Callable[[], object]] = []
"""Callbacks that clear the progress display before a task of this process writes to the terminal."""


class DriverCapture:
    """Context manager that captures output in the driver process and restores its streams afterwards.

    If standard input is a terminal nothing is captured, as a debugger may be using it. The context can be nested:
    a task may run a job on the executor that runs the task.

    Parameters
    ----------
    interactive
        Whether a debugger may use the terminal.
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
            _pass_on(self.prints)  # no outcome carries it
        if sys.stdout is self._ours[0]:  # otherwise the function replaced the stream
            sys.stdout = self._real[0]
        if sys.stderr is self._ours[1]:
            sys.stderr = self._real[1]
        for handler, stream in self._moved:
            handler.stream = stream


def _stand_in(stream: Any, name: str, *, live: bool) -> Any:
    return _Live(stream) if live and stream is not None else CapturingStream(stream, f"<{name}>")


def _moved_handlers(real: tuple[Any, Any], ours: tuple[Any, Any]) -> list[tuple[Any, Any]]:
    """Redirect logging handlers from the real streams to the capturing ones."""
    moved = []
    logging = sys.modules.get("logging")
    for reference in list(logging._handlerList) if logging is not None else ():
        handler = reference()
        stream = getattr(handler, "__dict__", {}).get("stream")
        if stream is not None and (stream is real[0] or stream is real[1]):
            handler.stream = ours[0] if stream is real[0] else ours[1]
            moved.append((handler, stream))
    return moved
