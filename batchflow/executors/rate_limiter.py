"""Rate limiter for one machine: eight shared bytes, and a lock that is released if its holder dies."""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from batchflow.core.rate import Rate
from batchflow.executors.processes import wire

_STATE = struct.Struct("<d")


class SharedRateLimiter:
    """Rate limiter as used by any process of this machine.

    The clock is `time.monotonic`, which is one for all processes. The kernel takes the lock off a
    process that is killed, and eight bytes are written or not: there is nothing to repair.

    Parameters
    ----------
    path
        Of the file, for who may open it.
    """

    def __init__(self, rate: Rate, path: str) -> None:
        self._rate = rate
        self._path = path
        self._file: int | None = None
        self._turn = threading.Lock()  # the file's keeps out other processes only

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedRateLimiter, (self._rate, self._path)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        with self._turn:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                yield self._file
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def reserve(self) -> float:
        """Reserve a start: return 0 if a call may start now, else the seconds until the next attempt."""
        with self._locked() as file:
            (due,) = _STATE.unpack(os.pread(file, _STATE.size, 0))
            seconds, due = self._rate.take(due, time.monotonic())
            if not seconds:
                os.pwrite(file, _STATE.pack(due), 0)
        return seconds

    def pause(self, seconds: float) -> None:
        """Block all starts for some seconds."""
        with self._locked() as file:
            (due,) = _STATE.unpack(os.pread(file, _STATE.size, 0))
            os.pwrite(file, _STATE.pack(self._rate.paused(due, time.monotonic() + seconds)), 0)

    def close(self) -> None:
        """Close the file in this process."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self.close()


class FileRateLimiter(SharedRateLimiter):
    """Rate limiter created by the driver, in an unnamed file that workers open through ``/proc``."""

    def __init__(self, rate: Rate) -> None:
        file = wire.anonymous_file()
        path = f"/proc/{os.getpid()}/fd/{file}"
        self._named = not os.path.exists(path)
        if self._named:  # macOS
            import tempfile

            os.close(file)
            file, path = tempfile.mkstemp(prefix="bf-rate-")
        os.pwrite(file, _STATE.pack(0.0), 0)
        super().__init__(rate, path)
        self._file = file

    def close(self) -> None:
        """Close the file, and remove it if it has a name."""
        super().close()
        if self._named:
            with suppress(OSError):
                os.unlink(self._path)
