"""The process that workers are forked from, and what a worker does.

The zygote is a fresh interpreter with one thread that has imported what workers need: a fork of it
takes some milliseconds, shares its memory, and inherits no lock, thread or connection of the
driver's. It tells the driver how each worker ended. When the driver is gone its socket closes: the
zygote kills the workers and ends; when the zygote is gone the kernel kills the workers.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass

from batchflow.executors import wire

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Spawn:
    """Driver to zygote: fork a worker; its socket follows."""

    number: int


@dataclass(frozen=True, slots=True)
class Ended:
    """Zygote to driver: a worker ended, with its status as of `os.waitpid`."""

    number: int
    status: int


def main(fileno: int) -> None:
    """Fork workers as the driver asks, until the driver is gone."""
    import cloudpickle  # noqa: F401 - here and not in each worker, likewise the next
    import pyarrow  # noqa: F401

    import batchflow.worker  # noqa: F401

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver to handle
    driver = socket.socket(fileno=fileno)
    Zygote(driver).run()


class Zygote:
    """Forks workers and reports their ends."""

    def __init__(self, driver: socket.socket) -> None:
        self._driver = driver
        self._children: dict[int, int] = {}
        self._bell, ringer = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(ringer, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(ringer, warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve the driver until it closes its socket."""
        while True:
            ready, _, _ = select.select([self._driver.fileno(), self._bell], [], [])
            if self._bell in ready:
                os.read(self._bell, 4096)
                self._reap()
            if self._driver.fileno() in ready and not self._serve():
                break
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        for pid in self._children:
            os.waitpid(pid, 0)

    def _serve(self) -> bool:
        """Fork one worker; false when the driver is gone."""
        try:
            message: Spawn = wire.receive(self._driver)
            _, fds, _, _ = socket.recv_fds(self._driver, 1, 1)
        except (EOFError, OSError):
            return False
        pid = os.fork()
        if pid == 0:
            self._become_worker(fds[0])
        os.close(fds[0])
        self._children[pid] = message.number
        return True

    def _become_worker(self, fileno: int) -> None:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._driver.close()
            _die_with_parent()
            serve(socket.socket(fileno=fileno))
            status = 0
        except BaseException:  # noqa: BLE001 - a worker must never run the zygote's code
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        """Tell the driver of every worker that ended."""
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            number = self._children.pop(pid)
            with suppress(OSError):  # the driver may be gone already
                wire.send(self._driver, Ended(number, status))


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when the zygote ends; Linux only, elsewhere the socket tells."""
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent == 1 or os.getppid() != parent:
        os._exit(1)


@dataclass(frozen=True, slots=True)
class Load:
    """Driver to worker: a program follows as a parcel of its own."""

    job: int


@dataclass(frozen=True, slots=True)
class Unload:
    """Driver to worker: forget a program."""

    job: int


def serve(driver: socket.socket) -> None:
    """Do the work that arrives on a socket until it closes."""
    from batchflow.worker import Program, Runner, failed

    runners: dict[int, Runner | BaseException] = {}
    while True:
        try:
            message = wire.receive(driver)
        except (EOFError, ConnectionError):
            return
        if isinstance(message, Load):
            try:
                program: Program = wire.receive(driver)
                runners[message.job] = Runner(program)
            except Exception as error:  # noqa: BLE001 - told as the failure of each task
                runners[message.job] = error
            continue
        if isinstance(message, Unload):
            runners.pop(message.job, None)
            continue
        job, work = message
        runner = runners[job]
        outcome = runner.perform(work) if isinstance(runner, Runner) else failed(work, "worker", runner)
        try:
            parcel = wire.pack((job, outcome))
        except Exception as error:  # noqa: BLE001 - a value that cannot be pickled
            parcel = wire.pack((job, failed(work, "convert", error)))
        try:
            parcel.send(driver)
        except OSError:
            return
        finally:
            parcel.close()
