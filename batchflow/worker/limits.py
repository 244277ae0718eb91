"""Time and memory limits of a task, enforced in the process that runs it.

A task over its time limit is first interrupted by an exception, which keeps the worker alive and shows where
the function was. If C code ignores that for a second, `faulthandler` ends the process from its own thread,
which needs no GIL.

Memory is what the kernel counts as data: private and writable. Over the limit an allocation fails and Python
raises `MemoryError`, long before the machine runs out of memory; other processes are unaffected.
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
"""Interval of the checks whether an import, which must not be interrupted, has finished."""
OVERTIME = 1
"""Exit status of a process that `faulthandler` ended."""


_ends = memoryview(bytearray(8)).cast("Q")
"""Time (`time.monotonic_ns`) at which this process will end itself if it is still working; 0: never."""


def share_end(cells: memoryview) -> None:
    """Keep the end time in memory shared with the driver, which must act if this process is stopped."""
    global _ends
    _ends = cells


class TaskTimeout(BaseException):
    """Raised inside the user's function; no `Exception`, so that ``except Exception`` does not catch it."""


class TaskLimits:
    """Context manager that enforces limits on its body.

    Parameters
    ----------
    seconds
        Time limit from now on; ``None``: no limit.
    memory
        Bytes that this process may allocate beyond its idle size; ``None``: no limit. Enforced on Linux
        only.
    left
        Returns the seconds left for the current record at the time limit, as each record may take all of it.
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
        if threading.current_thread() is threading.main_thread():  # signals reach only the main thread
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
            self._on = False  # the alarm may fire just before this line
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
    """End this process after a delay unless the clock is stopped first."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=_nowhere())
    _ends[0] = time.monotonic_ns() + int(seconds * 1e9)


def is_importing(frame: FrameType | None) -> bool:
    """Whether a frame is inside an import; an interrupted import leaves locks behind that block later imports."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def give_back() -> None:
    """Return unused memory to the system: otherwise it counts against the next task."""
    import gc

    gc.collect()
    if sys.platform == "linux":
        with suppress(AttributeError):  # a C library other than glibc
            ctypes.CDLL(None).malloc_trim(0)


def end_with_parent() -> None:
    """Ask the kernel to kill this process when its parent ends; on Linux only."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent == 1 or os.getppid() != parent:
        os._exit(1)


def was_overtime(began: float, seconds: float | None) -> bool:
    """Whether a process that ended itself did so because its task took too long.

    Parameters
    ----------
    began
        `time.monotonic` at the start of the task.
    seconds
        Time limit of the task.
    """
    return seconds is not None and time.monotonic() - began >= seconds + GRACE


def too_slow(work: WorkItem, seconds: float) -> TimeoutError:
    """Return the error for work that took too long."""
    if isinstance(work, AssemblePart):
        return TimeoutError(f"it is not written after {seconds:,.3g} seconds: the disk hangs")
    return TimeoutError(f"the task took longer than timeout={seconds:g} seconds")


_null: list[TextIO] = []


def _nowhere() -> TextIO:
    if not _null:
        _null.append(open(os.devnull, "w", encoding="ascii"))  # noqa: SIM115 - as long as the process
    return _null[0]


def _cap_memory(cap: int) -> tuple[int, int]:
    """Limit how much this process may allocate beyond its idle size; return the limits before.

    The kernel limits requested memory, and allocators request more than they need. What the process has used
    since it was idle is therefore measured in touched pages, and the rest of its data is not charged to the task.
    """
    import resource

    arrow = sys.modules.get("pyarrow")
    if arrow is not None:  # the default allocator of Arrow reserves a gigabyte at a time
        arrow.set_memory_pool(arrow.system_memory_pool())
    before = resource.getrlimit(resource.RLIMIT_DATA)
    data, touched = _memory()
    _set_limits((data + max(0, cap - (touched - _idle())), before[1]))
    return before


def _set_limits(limits: tuple[int, int]) -> None:
    import resource

    with suppress(ValueError, OSError):  # above the hard limit, which is then the stricter one
        resource.setrlimit(resource.RLIMIT_DATA, limits)


def settle() -> None:
    """Take the current memory, which includes the loaded program, as the idle size of this process."""
    _idle.cache_clear()


@cache
def _idle() -> int:
    """Return the resident bytes of this process before its first limited task."""
    give_back()
    return _memory()[1]


def _memory() -> tuple[int, int]:
    """Return the data bytes that the kernel counts for this process and its touched private bytes."""
    found = {}
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith(("VmData:", "RssAnon:")):
                name, size, _ = line.split()
                found[name] = int(size) * 1024
    return found["VmData:"], found["RssAnon:"]
