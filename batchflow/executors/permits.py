"""Leave to begin what was sent ahead to a worker, which the driver can take back.

Each permit is a number in a pipe that both can read, so the kernel sees to it that only one of them has it:
the worker, which then begins that piece of work, or the driver, which then has taken it back. A permit is
in the pipe before its work is sent; so if it is not there any more when the worker looks, it was taken back.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress

_PERMIT = struct.Struct("<Q")
_ALL = 4096
"""Bytes that are read at one stroke: more than ever are in the pipe."""


class Permits:
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
    def make(cls) -> Permits:
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
