"""The process that workers are forked from, and what a worker does.

The zygote is a fresh interpreter with one thread that has imported what workers need: a fork of it
takes some milliseconds, shares its memory, and inherits no lock, thread or connection of the
driver's. It tells the driver how each worker ended. When the driver is gone its socket closes: the
zygote kills the workers and ends; when the zygote is gone the kernel kills the workers. A worker
leads a process group of its own, so that what the user's function started dies with it.

Between driver and zygote: a number with three descriptors asks for a worker of that number (they are
its socket, its `Tally` and where its `Permits` come from), a number alone asks to kill it; back comes an
`Ended` for each.
"""

from __future__ import annotations

import atexit
import gc
import mmap
import os
import select
import selectors
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from batchflow.bootstrap import DEPTH, depth
from batchflow.executors import wire
from batchflow.executors.base import BUNDLE_SECONDS, UNKNOWN, Loaded, later_task, opened
from batchflow.executors.lean import full_call, lean_outcome
from batchflow.executors.permits import Permits
from batchflow.model import Call, Failed, Outcome, Task, Work
from batchflow.process_state import ProcessState, go_home
from batchflow.worker import BARE, Limits, Overtime, bare, end_with_parent, failed, lost, over
from batchflow.worker.earlier import NOT_BEGUN, EarlierValues
from batchflow.worker.guard import GRACE, Guard, share_end
from batchflow.worker.log_records import LogSettings
from batchflow.worker.log_records import install as install_logging
from batchflow.worker.position import CELLS
from batchflow.worker.prints import LIMIT, Mirror, Prints, gathering

REQUEST = struct.Struct("<Q")  # as in `batchflow.launch`, which a zygote need not load
CLOSE = 0
END_SECONDS = 1.0
"""What idle workers are given to end by themselves when the driver closes its executor."""
_POLL_SECONDS = 1.0
"""After what time it is looked again whether the driver is there, where the kernel cannot tell."""
_ENDED = struct.Struct("<Qi")
_CELLS = 40
_TALLY = _CELLS + LIMIT + 8 * CELLS


class Ended(NamedTuple):
    """Zygote to driver: a worker ended, with an exit status, or if that is negative by a signal."""

    number: int
    status: int

    def pack(self) -> bytes:
        """Return the bytes that travel."""
        return _ENDED.pack(*self)

    @classmethod
    def receive(cls, source: socket.socket) -> Ended:
        """Return the next one; raises `EOFError` or `OSError` if the zygote is gone."""
        message = source.recv(_ENDED.size)
        if not message:
            raise EOFError
        return cls(*_ENDED.unpack(message))


class Tally(Mirror):
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
    def make(cls) -> tuple[Tally, int]:
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


def main(fileno: int, driver: int, path: list[str], *, arrow: bool, rows: bool, waits: bool) -> None:
    """Fork workers as the driver asks, until the driver is gone.

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
        import batchflow.worker.waiting  # noqa: F401 - with asyncio, 40 ms
    sys.path[:] = path
    os.environ[DEPTH] = str(depth())
    gc.freeze()  # what is imported lives for ever: no worker need look at it, and so copy it, again
    gc.enable()
    zygote = Zygote(socket.socket(fileno=fileno), driver)
    zygote.run()
    os._exit(0)  # nothing to tidy up: the driver waits for this end


class Zygote:
    """Forks workers and reports their ends."""

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
        """Serve the driver until it closes its socket, or ends: a fork of it may hold the socket open."""
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
        """Give workers time to end by themselves: their sockets are closed."""
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
                self._work(driver, Tally(tally), Permits(permits))
            atexit._run_exitfuncs()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            _flush()
            os._exit(status)

    def _work(self, driver: socket.socket, tally: Tally, permits: Permits) -> None:
        """Do the work of the driver, with what it prints going along with what it gives."""
        prints = Prints(tally)
        with gathering(prints):
            Worker(driver, tally, permits, prints).run()

    def _reap(self) -> None:
        """Tell the driver of every worker that ended, once all that it started is killed."""
        while self._children:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            _kill_group(ended.si_pid)
            pid, status = os.waitpid(ended.si_pid, 0)
            number = self._children.pop(pid)
            with suppress(OSError):  # the driver may be gone already
                self._driver.sendall(Ended(number, os.waitstatus_to_exitcode(status)).pack())


def _process_file(pid: int) -> int | None:
    """Return a descriptor that is readable when a process ends; ``None`` if the kernel has none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _reseed() -> None:
    """Give this fork random numbers of its own; `random` does so by itself."""
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _flush() -> None:
    """Write out what was printed: a worker may be killed at any time."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # none, gone, or closed by the user's function
            stream.flush()


BUNDLE_BYTES = 1_000_000
"""Of the rows of short work that came together, after which a worker gives back what is done."""


class Load(NamedTuple):
    """Driver to worker: work of a job follows, and its program as a parcel of its own, if it has one."""

    job: int
    state: ProcessState
    limits: Limits
    """Of one task, the making of program and records included."""
    waits: bool
    """Whether the calls of the program wait."""
    has_program: bool
    log_settings: LogSettings | None = None


class Unload(NamedTuple):
    """Driver to worker: forget a program."""

    job: int


class Worker:
    """Does the work that arrives on a socket; each piece has one answer, in the order of arrival."""

    def __init__(self, driver: socket.socket, tally: Tally, permits: Permits, prints: Prints) -> None:
        self._driver = driver
        self._inbox = wire.Inbox(driver, shares=True)
        self._arrivals = wire.Wakeful()
        self._arrivals.register(driver, selectors.EVENT_READ)
        self._prints = prints
        self._permits = permits
        self._tally = tally
        self._tally.pid = self._pid = os.getpid()
        share_end(tally.end)
        self._answered = 0
        self._broken = False
        """Whether the last work gave nothing, so that none begins that was sent ahead."""
        self._programs: dict[int, Loaded] = {}
        self._folders: dict[int, str] = {}
        """Working directories of the driver, for calls of flows."""
        self._earlier = EarlierValues()
        self._frames: deque[tuple[wire.Frame, Any]] = deque()
        """What has been read ahead, and what it holds where that is a task."""

    def run(self) -> None:
        """Work until the driver closes the socket."""
        with suppress(EOFError, OSError):
            while True:
                self._next()

    def _next(self) -> None:
        if not self._frames and not self._inbox.has_whole:
            self._arrivals.select()
        frame, early = self._frames.popleft() if self._frames else (self._inbox.frame(), None)
        if frame.permit:
            if not self._permits.take(frame.permit):
                return  # it was taken back
            if self._broken:
                self._answer(NOT_BEGUN)
                return
        self._tally.begin(self._answered + 1)  # records may kill their worker too when they are made again
        limits = self._loosest()
        try:
            message = opened(frame.open, limits) if early is None else early
        except (Overtime, MemoryError) as error:
            self._answer(over(UNKNOWN, error, limits))
        except (Exception, SystemExit) as error:
            self._answer(failed(UNKNOWN, "read", error))
        else:
            self._heed(message)

    def _later(self, job: int, index: int) -> Task | None:
        """Return one of the tasks of a job that wait here, as far as they have arrived."""
        while len(self._frames) <= index:
            if self._frames and self._frames[-1][1] is None:
                return None  # it has its own turn
            if not self._inbox.has_whole and not select.select([self._driver], [], [], 0)[0]:
                return None
            frame = self._inbox.frame()
            message = None
            if not frame.permit:
                with suppress(Exception):  # it is told when its turn has come
                    message = frame.open()
            self._frames.append((frame, message))
            if not (isinstance(message, tuple) and len(message) == 2 and isinstance(message[1], Task)):
                self._frames[-1] = frame, None
        work = [message[1] for _, message in self._frames if message is not None and message[0] == job]
        return later_task(work, index)

    def _loosest(self) -> Limits:
        """Return limits that the work of no job exceeds: whose it is shows once it is made again."""
        if not self._programs:
            return Limits()
        columns = zip(*(program.limits for program in self._programs.values()), strict=True)
        return Limits(*(None if None in column else max(column) for column in columns))

    def _heed(self, message: Any) -> None:
        if isinstance(message, Load):
            message.state.apply()
            message.state.apply_filters()
            install_logging(message.log_settings)
            if message.has_program:
                frame = self._inbox.frame()
                cells = self._tally.cells
                self._programs[message.job] = Loaded(frame.open, message.limits, waits=message.waits, cells=cells)
            else:
                self._folders[message.job] = message.state.folder
        elif isinstance(message, Unload):
            self._folders.pop(message.job, None)
            if message.job in self._programs:
                self._programs.pop(message.job).close()
        else:
            job, work = message
            if type(work) is list:
                self._answer_all(job, work)
            else:
                outcome = self._perform(job, full_call(work) if type(work) is tuple else work)
                loaded = self._programs.get(job)
                self._answer(outcome, loaded.limits if loaded else Limits())
            return
        self._tally.begin(self._answered)  # that was no work

    def _perform(self, job: int, work: Work) -> Outcome:
        limits = Limits()
        try:
            if isinstance(work, Call):
                go_home(self._folders.get(job, ""))
                return self._earlier.called(job, work)
            if isinstance(work, BARE):
                return bare(work)
            program = self._programs[job]
            limits = program.limits
            runner = program.runner()
            return runner.perform(work, partial(self._later, job) if program.waits else None)
        except (Overtime, MemoryError) as error:
            return over(work, error, limits)
        except BaseException as error:
            return lost(work, "call", error)
        finally:
            _flush()
            if os.getpid() != self._pid:
                os._exit(0)  # a fork that the function made and did not end: its parent answers, and once

    def _answer_all(self, job: int, works: Sequence[Work]) -> None:
        """Do short work that came together, until one takes long, gives much or fails; the rest is sent anew."""
        self._answered += 1
        outcomes: list[Outcome] = []
        until, room = time.monotonic() + BUNDLE_SECONDS, BUNDLE_BYTES
        for work in works:
            outcome = self._perform(job, work)
            outcomes.append(self._with_lines(outcome))
            room -= outcome.stats.held
            if isinstance(outcome, Failed) or room < 0 or time.monotonic() > until:
                break
        try:
            parcel = wire.pack(outcomes)
        except Exception:
            parcel = wire.pack([])
        self._send(parcel)

    def _answer(self, outcome: Outcome, limits: Limits = Limits()) -> None:  # noqa: B008 - it never changes
        self._answered += 1
        self._broken = isinstance(outcome, Failed) or outcome is NOT_BEGUN
        outcome = self._with_lines(outcome)
        try:
            with Guard(limits.seconds, None):  # pickling may run code of the user's
                parcel = wire.pack(lean_outcome(outcome))
        except Overtime as error:
            late = over(UNKNOWN, error, limits)
            parcel = wire.pack(late._replace(printed=outcome.printed, stats=outcome.stats))
        except BaseException as error:
            parcel = wire.pack(lost(UNKNOWN, "convert", error)._replace(printed=outcome.printed))
        self._send(parcel)

    def _with_lines(self, outcome: Outcome) -> Outcome:
        """Return an outcome with what was printed meanwhile."""
        printed = self._prints.take() if self._prints else ()
        return outcome._replace(printed=printed) if printed else outcome

    def _send(self, parcel: wire.Parcel) -> None:
        try:
            parcel.send(self._driver)
        finally:
            parcel.close()
