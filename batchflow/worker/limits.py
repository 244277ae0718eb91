"""Keeps a task inside its time and memory, where it runs.

Time is told to the function twice: first by an exception raised inside it, which leaves the worker
alive and shows where it was; a second later, where it sits in C code that hears nothing, by the end
of the process, for which `faulthandler` has a thread that needs nobody's leave.

Memory is what the kernel calls data: private and writable. Over the cap an allocation fails, which
Python makes a `MemoryError` of, long before the machine runs out; nobody else notices.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from types import FrameType
from typing import Any, TextIO

from batchflow.core.work import AssemblePart, WorkItem

_PR_SET_PDEATHSIG = 1
GRACE = 1.0
"""Seconds between the exception and the end of the process."""


IMPORT_SECONDS = 0.01
"""After what time it is looked again whether an import is over that must not be broken off."""
OVERTIME = 1
"""Exit status of a process that `faulthandler` ended."""


_ends = memoryview(bytearray(8)).cast("Q")
"""`time.monotonic_ns` when this process ends itself if it still works on what it was given; 0: it does not."""


def share_end(cells: memoryview) -> None:
    """Note from now on in memory shared with the driver when this process ends itself: a stopped one cannot."""
    global _ends
    _ends = cells


class TaskTimeout(BaseException):
    """Raised inside the user's function; not an `Exception`, so that it does not take it for its own."""


class TaskLimits:
    """Keeps what runs inside ``with`` to its limits.

    Parameters
    ----------
    seconds
        From now on; ``None``: as long as it takes.
    memory
        Bytes that this process may take on top of what it had when it was idle; ``None``: as much as
        there is. On Linux only.
    left
        Gives the seconds that the record at hand has left when the time is over: each may take all of it.
    """

    def __init__(
        self, seconds: float | None, memory: int | None, left: Callable[[float], float] | None = None
    ) -> None:
        self._left = left
        self._seconds = seconds
        self._memory = memory
        self._on = False
        self._before: Any = None
        self._limits: tuple[int, int] | None = None

    def __enter__(self) -> None:
        if self._memory is not None and sys.platform == "linux":
            self._limits = _cap_memory(self._memory)
        if self._seconds is not None:
            self._start_clock(self._seconds)

    def _start_clock(self, seconds: float) -> None:
        _end_after(seconds + GRACE)
        if threading.current_thread() is threading.main_thread():  # elsewhere nobody hears a signal
            self._on = True
            self._before = signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, seconds)

    def _ring(self, _: int, frame: FrameType | None) -> None:
        if self._on and is_importing(frame):
            signal.setitimer(signal.ITIMER_REAL, IMPORT_SECONDS)
        elif self._on and (left := self._left(self._seconds or 0.0) if self._left else 0.0) > 0:
            _end_after(left + GRACE)
            signal.setitimer(signal.ITIMER_REAL, left)
        elif self._on:
            raise TaskTimeout

    def __exit__(self, *_: object) -> None:
        try:
            self._on = False  # the alarm may go off right before
        finally:
            self._tidy_up()

    def _tidy_up(self) -> None:
        if self._before is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)
        if self._seconds is not None:
            faulthandler.cancel_dump_traceback_later()
            _ends[0] = 0
        if self._limits is not None:
            _set_limits(self._limits)


def _end_after(seconds: float) -> None:
    """Have this process end if the clock is not stopped before."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=_nowhere())
    _ends[0] = time.monotonic_ns() + int(seconds * 1e9)


def is_importing(frame: FrameType | None) -> bool:
    """Whether a frame is inside of an import; broken off there it leaves locks behind that no import gets past."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def give_back() -> None:
    """Return memory that nobody uses any more to the system: what is kept counts against the next task."""
    import gc

    gc.collect()
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def end_with_parent() -> None:
    """Ask the kernel to kill this process when the one that started it ends; on Linux only."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent == 1 or os.getppid() != parent:
        os._exit(1)


def was_overtime(began: float, seconds: float | None) -> bool:
    """Whether a process that ended by itself did so because its task took too long.

    Parameters
    ----------
    began
        `time.monotonic` when the task began.
    seconds
        What it was given.
    """
    return seconds is not None and time.monotonic() - began >= seconds + GRACE


def too_slow(work: WorkItem, seconds: float) -> TimeoutError:
    """Return the error of work that took too long."""
    if isinstance(work, AssemblePart):
        return TimeoutError(f"it is not written after {seconds:,.3g} seconds: the disk hangs")
    return TimeoutError(f"the task took longer than timeout={seconds:g} seconds")


_null: list[TextIO] = []


def _nowhere() -> TextIO:
    if not _null:
        _null.append(open(os.devnull, "w", encoding="ascii"))  # noqa: SIM115 - as long as the process
    return _null[0]


def _cap_memory(cap: int) -> tuple[int, int]:
    """Let this process take so many bytes more than it had when it was idle; return the limits before.

    The kernel counts what was asked for, and allocators ask for more than they need; so what this
    process takes up by now is told by the pages it has touched, and the rest of its data is no task's.
    """
    import resource

    arrow = sys.modules.get("pyarrow")
    if arrow is not None:  # its own allocator asks for a gigabyte at a time
        arrow.set_memory_pool(arrow.system_memory_pool())
    before = resource.getrlimit(resource.RLIMIT_DATA)
    data, touched = _memory()
    _set_limits((data + max(0, cap - (touched - _idle())), before[1]))
    return before


def _set_limits(limits: tuple[int, int]) -> None:
    import resource

    with suppress(ValueError, OSError):  # over the hard limit, which then is the tighter cap
        resource.setrlimit(resource.RLIMIT_DATA, limits)


def settle() -> None:
    """Count what this process has by now, the program of a job, say, as what it has when it is idle."""
    _idle.cache_clear()


@cache
def _idle() -> int:
    """Return the bytes that this process needs before its first capped task."""
    give_back()
    return _memory()[1]


def _memory() -> tuple[int, int]:
    """Return the bytes that the kernel counts as data of this process, and those of its own that it touched."""
    found = {}
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith(("VmData:", "RssAnon:")):
                name, size, _ = line.split()
                found[name] = int(size) * 1024
    return found["VmData:"], found["RssAnon:"]
