"""Zygote: the process that workers are forked from.

The zygote is a fresh interpreter with one thread that has imported what workers need: a fork of it
takes some milliseconds, shares its memory, and inherits no lock, thread or connection of the
driver's. It tells the driver how each worker ended. When the driver is gone its socket closes: the
zygote kills the workers and ends; when the zygote is gone the kernel kills the workers. A worker
leads a process group of its own, so that what the user's function started dies with it.

Between driver and zygote: a number with three descriptors asks for a worker of that number (they are
its socket, its `WorkerCounters` and the pipe of its `StartTokens`), a number alone asks to kill it; back comes a
`WorkerExited` for each.
"""

from __future__ import annotations

import atexit
import gc
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from batchflow.core.bootstrap import DEPTH, depth
from batchflow.executors.processes.shared_state import StartTokens, WorkerCounters
from batchflow.executors.processes.worker import Worker, flush_output
from batchflow.worker import (
    end_with_parent,
)
from batchflow.worker.stdio_capture import LineBuffer, gathering

REQUEST = struct.Struct("<Q")  # as in `batchflow.executors.processes.launcher`, which a zygote need not load
CLOSE = 0
END_SECONDS = 1.0
"""Seconds for idle workers to exit when the driver closes its executor."""
_POLL_SECONDS = 1.0
"""Seconds between checks that the driver is alive, if the kernel cannot notify."""
_ENDED = struct.Struct("<Qi")


class WorkerExited(NamedTuple):
    """Message from zygote to driver: a worker ended, with an exit status, or if negative by a signal."""

    number: int
    status: int

    def pack(self) -> bytes:
        """Return the message as bytes."""
        return _ENDED.pack(*self)

    @classmethod
    def receive(cls, source: socket.socket) -> WorkerExited:
        """Receive the next message; raises `EOFError` or `OSError` if the zygote is gone."""
        message = source.recv(_ENDED.size)
        if not message:
            raise EOFError
        return cls(*_ENDED.unpack(message))


def main(fileno: int, driver: int, path: list[str], *, arrow: bool, rows: bool, waits: bool) -> None:
    """Fork workers on request until the driver is gone.

    Parameters
    ----------
    fileno
        Socket of the driver.
    driver
        Its process.
    path
        Where it imports from.
    arrow
        Whether to load Arrow, once for all workers; otherwise those do that need it.
    rows
        Whether to load what it makes rows of Python's values with.
    waits
        Whether to load what runs calls that wait.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver to handle
    if arrow:
        import pyarrow as pa

        if rows:
            pa.array([0])  # the first one loads pandas where that is installed: 0.2 s and 40 MB of each worker
    if waits:
        import batchflow.worker.concurrent_task  # noqa: F401 - with asyncio, 40 ms
    sys.path[:] = path
    os.environ[DEPTH] = str(depth())
    gc.freeze()  # what is imported lives for ever: no worker need look at it, and so copy it, again
    gc.enable()
    zygote = ForkServer(socket.socket(fileno=fileno), driver)
    zygote.run()
    os._exit(0)  # nothing to tidy up: the driver waits for this end


class ForkServer:
    """Main loop of the zygote: forks workers and reports their exits."""

    def __init__(self, driver: socket.socket, pid: int) -> None:
        self._driver = driver
        self._driver_pid = pid
        self._end = _process_file(pid)
        self._children: dict[int, int] = {}
        self._is_closing = False
        self._bell, ringer = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(ringer, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(ringer, warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve the driver until its socket closes or it ends; a fork of it may hold the socket open."""
        ends = [self._driver.fileno(), self._bell] + ([] if self._end is None else [self._end])
        while os.getppid() == self._driver_pid:
            ready, _, _ = select.select(ends, [], [], _POLL_SECONDS if self._end is None else None)
            self._hear_bell(ready)
            if self._end in ready or (ends[0] in ready and not self._serve()):
                break
        if self._is_closing:
            self._let_end()
        for pid in self._children:
            _kill_group(pid)
        for pid in self._children:
            os.waitpid(pid, 0)

    def _hear_bell(self, ready: Sequence[int]) -> None:
        if self._bell in ready:
            os.read(self._bell, 4096)
            self._reap()

    def _let_end(self) -> None:
        """Give workers time to exit after their sockets were closed."""
        until = time.monotonic() + END_SECONDS
        while self._children and (left := until - time.monotonic()) > 0:
            self._hear_bell(select.select([self._bell], [], [], left)[0])

    def _serve(self) -> bool:
        """Fork or kill one worker; false when the driver is gone."""
        try:
            request, fds, _, _ = socket.recv_fds(self._driver, REQUEST.size, 3)
        except OSError:
            return False
        if not request:
            return False
        (number,) = REQUEST.unpack(request)
        if number == CLOSE:
            self._is_closing = True
        elif not fds:
            for pid in [pid for pid, other in self._children.items() if other == number]:
                _kill_group(pid)
        else:
            self._fork(number, fds)
        return True

    def _fork(self, number: int, fds: Sequence[int]) -> None:
        """Fork a worker."""
        pid = os.fork()
        if pid == 0:
            self._become_worker(*fds)
        with suppress(OSError):  # the worker does the same: whoever is first
            os.setpgid(pid, pid)
        for fd in fds:
            os.close(fd)
        self._children[pid] = number

    def _become_worker(self, work: int, tally: int, permits: int) -> None:
        status = 1
        try:
            with suppress(OSError):
                os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._driver.close()
            for descriptor in (self._bell, self._end):
                if descriptor is not None:
                    os.close(descriptor)
            end_with_parent()  # elsewhere than on Linux the socket tells
            _reseed()
            with socket.socket(fileno=work) as driver:
                self._work(driver, WorkerCounters(tally), StartTokens(permits))
            atexit._run_exitfuncs()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            flush_output()
            os._exit(status)

    def _work(self, driver: socket.socket, tally: WorkerCounters, permits: StartTokens) -> None:
        """Run the work of the driver and capture its printed lines."""
        prints = LineBuffer(tally)
        with gathering(prints):
            Worker(driver, tally, permits, prints).run()

    def _reap(self) -> None:
        """Report each exited worker to the driver, after all processes it started are killed."""
        while self._children:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            _kill_group(ended.si_pid)
            pid, status = os.waitpid(ended.si_pid, 0)
            number = self._children.pop(pid)
            with suppress(OSError):  # the driver may be gone already
                self._driver.sendall(WorkerExited(number, os.waitstatus_to_exitcode(status)).pack())


def _process_file(pid: int) -> int | None:
    """Return a descriptor that becomes readable when a process ends; ``None`` if the kernel has none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _reseed() -> None:
    """Seed the random generators of this fork; `random` does so by itself."""
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
