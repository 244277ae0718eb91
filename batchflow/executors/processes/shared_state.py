"""Memory and start tokens that a worker shares with the driver.

Each permit is a number in a pipe that both can read, so the kernel sees to it that only one of them has it:
the worker, which then begins that piece of work, or the driver, which then has taken it back. A permit is
in the pipe before its work is sent; so if it is not there any more when the worker looks, it was taken back.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from contextlib import suppress

from batchflow.executors.processes import wire
from batchflow.worker.limits import GRACE
from batchflow.worker.position import CELLS
from batchflow.worker.stdio_capture import LIMIT, LineMirror

_PERMIT = struct.Struct("<Q")
_ALL = 4096
"""Bytes that are read at one stroke: more than ever are in the pipe."""


class StartTokens:
    """The permits of one worker.

    Parameters
    ----------
    outlet
        Where both read.
    inlet
        Where the driver, which has it alone, writes.
    """

    def __init__(self, outlet: int, inlet: int | None = None) -> None:
        self.outlet = outlet
        self._inlet = inlet
        self._last = 0
        """The last one that was given here, or read."""

    @classmethod
    def make(cls) -> StartTokens:
        """Return those of a new worker."""
        outlet, inlet = os.pipe()
        os.set_blocking(outlet, False)
        return cls(outlet, inlet)

    def give(self, count: int) -> range:
        """Return new ones, which are in the pipe from now on."""
        assert self._inlet is not None
        given = range(self._last + 1, self._last + 1 + count)
        os.write(self._inlet, b"".join(map(_PERMIT.pack, given)))
        self._last += count
        return given

    def take(self, number: int) -> bool:
        """Take the one for a piece of work, on the worker; false where it was taken back."""
        while self._last < number:
            read = self._read(_PERMIT.size)
            if not read:
                return False
            (self._last,) = read
        return self._last == number  # a later one is for later

    def take_back(self) -> list[int]:
        """Take all that there are, on the driver."""
        return self._read(_ALL)

    def _read(self, size: int) -> list[int]:
        with suppress(BlockingIOError):
            return [number for (number,) in _PERMIT.iter_unpack(os.read(self.outlet, size))]
        return []

    def close(self) -> None:
        """Give the pipe free, on the driver."""
        for end in (self.outlet, self._inlet):
            if end is not None:
                os.close(end)


_CELLS = 40
_TALLY = _CELLS + LIMIT + 8 * CELLS


class WorkerCounters(LineMirror):
    """Which process a worker is and how much work it began, in memory that it shares with the driver.

    So the driver can tell, when a worker died, the work that it was at from work that waited in its
    socket, and what that had printed. What nobody touches takes no memory.
    """

    def __init__(self, file: int) -> None:
        memory = memoryview(mmap.mmap(file, _TALLY))
        self._cells = memory[:_CELLS].cast("Q")
        self.end: memoryview = self._cells[4:]
        """When the worker ends itself, as `share_end` has it."""
        self._lines = memory[_CELLS : _CELLS + LIMIT]
        self.cells: memoryview = memory[_CELLS + LIMIT :].cast("Q")
        """Position of the work at hand."""

    @classmethod
    def make(cls) -> tuple[WorkerCounters, int]:
        """Return a new one, and the descriptor to make it from in another process."""
        file = wire.anonymous_file()
        os.truncate(file, _TALLY)
        return cls(file), file

    @property
    def begun(self) -> int:
        """Pieces of work begun."""
        return self._cells[0]

    @property
    def since(self) -> float:
        """When the last piece was begun, by `time.monotonic`, which is one clock for all processes."""
        return self._cells[2] / 1e9

    @property
    def is_overdue(self) -> bool:
        """Whether the worker should have ended itself: it was stopped, or is frozen."""
        end = self.end[0]
        return end > 0 and time.monotonic_ns() > end + int(GRACE * 1e9)

    def begin(self, count: int) -> None:
        """Note that a piece of work begins, the last of so many."""
        self._cells[2] = time.monotonic_ns()
        self._cells[0] = count

    def keep(self, line: bytes) -> None:
        """Keep a line that the work printed."""
        start = self._cells[3]
        stop = start + len(line) + 1
        if stop <= LIMIT:
            self._lines[start:stop] = line + b"\n"
            self._cells[3] = stop

    def forget(self) -> None:
        """Forget these lines: they go to the driver in another way."""
        self._cells[3] = 0

    @property
    def kept(self) -> tuple[str, ...]:
        """Lines that the work printed."""
        lines = bytes(self._lines[: self._cells[3]]).split(b"\n")[:-1]
        return tuple(line.decode(errors="backslashreplace") for line in lines)

    @property
    def pid(self) -> int:
        """Number of the worker process."""
        return self._cells[1]

    @pid.setter
    def pid(self, pid: int) -> None:
        self._cells[1] = pid
