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
"""Bytes per read of the pipe, more than it ever holds."""


class StartTokens:
    """Start tokens of one worker.

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
        """Number of the last token given or read by this process."""

    @classmethod
    def make(cls) -> StartTokens:
        """Create the tokens of a new worker."""
        outlet, inlet = os.pipe()
        os.set_blocking(outlet, False)
        return cls(outlet, inlet)

    def give(self, count: int) -> range:
        """Issue new tokens; they are in the pipe when this returns."""
        assert self._inlet is not None
        given = range(self._last + 1, self._last + 1 + count)
        os.write(self._inlet, b"".join(map(_PERMIT.pack, given)))
        self._last += count
        return given

    def take(self, number: int) -> bool:
        """Take the token of a piece of work, on the worker; false if the driver took it back."""
        while self._last < number:
            read = self._read(_PERMIT.size)
            if not read:
                return False
            (self._last,) = read
        return self._last == number  # a later one is for later

    def take_back(self) -> list[int]:
        """Take back all remaining tokens, on the driver."""
        return self._read(_ALL)

    def _read(self, size: int) -> list[int]:
        with suppress(BlockingIOError):
            return [number for (number,) in _PERMIT.iter_unpack(os.read(self.outlet, size))]
        return []

    def close(self) -> None:
        """Close the pipe, on the driver."""
        for end in (self.outlet, self._inlet):
            if end is not None:
                os.close(end)


_CELLS = 40
_TALLY = _CELLS + LIMIT + 8 * CELLS


class WorkerCounters(LineMirror):
    """Process ID and work counters of a worker, in memory shared with the driver.

    So the driver can tell, when a worker died, the work that it was at from work that waited in its
    socket, and what that had printed. What nobody touches takes no memory.
    """

    def __init__(self, file: int) -> None:
        memory = memoryview(mmap.mmap(file, _TALLY))
        self._cells = memory[:_CELLS].cast("Q")
        self.end: memoryview = self._cells[4:]
        """Deadline at which the worker ends itself, in the format of `share_end`."""
        self._lines = memory[_CELLS : _CELLS + LIMIT]
        self.cells: memoryview = memory[_CELLS + LIMIT :].cast("Q")
        """Position of the current work."""

    @classmethod
    def make(cls) -> tuple[WorkerCounters, int]:
        """Create counters, and the descriptor that another process opens them from."""
        file = wire.anonymous_file()
        os.truncate(file, _TALLY)
        return cls(file), file

    @property
    def begun(self) -> int:
        """Number of pieces of work started."""
        return self._cells[0]

    @property
    def since(self) -> float:
        """Start of the last piece of work, by `time.monotonic`, which is one clock for all processes."""
        return self._cells[2] / 1e9

    @property
    def is_overdue(self) -> bool:
        """Whether the worker is past its deadline, because it was stopped or is frozen."""
        end = self.end[0]
        return end > 0 and time.monotonic_ns() > end + int(GRACE * 1e9)

    def begin(self, count: int) -> None:
        """Record the start of a piece of work, the last of this many."""
        self._cells[2] = time.monotonic_ns()
        self._cells[0] = count

    def keep(self, line: bytes) -> None:
        """Store a line that the work printed."""
        start = self._cells[3]
        stop = start + len(line) + 1
        if stop <= LIMIT:
            self._lines[start:stop] = line + b"\n"
            self._cells[3] = stop

    def forget(self) -> None:
        """Discard the stored lines; they reach the driver in another way."""
        self._cells[3] = 0

    @property
    def kept(self) -> tuple[str, ...]:
        """Lines that the work printed."""
        lines = bytes(self._lines[: self._cells[3]]).split(b"\n")[:-1]
        return tuple(line.decode(errors="backslashreplace") for line in lines)

    @property
    def pid(self) -> int:
        """Process ID of the worker."""
        return self._cells[1]

    @pid.setter
    def pid(self, pid: int) -> None:
        self._cells[1] = pid
