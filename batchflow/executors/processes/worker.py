"""Worker process: its loop, and the messages that load and unload programs."""

from __future__ import annotations

import os
import select
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from batchflow.core.outcomes import Failed, Outcome
from batchflow.core.process_state import ProcessState, go_home
from batchflow.core.work import Call, Task, WorkItem
from batchflow.executors.base import BUNDLE_SECONDS, UNKNOWN, later_task
from batchflow.executors.processes import wire
from batchflow.executors.processes.shared_state import StartTokens, WorkerCounters
from batchflow.executors.processes.wire import full_call, lean_outcome
from batchflow.executors.program_loading import LoadedProgram, opened
from batchflow.worker import (
    PROGRAM_FREE_WORK,
    Limits,
    TaskTimeout,
    failed,
    lost,
    over,
    run_without_program,
)
from batchflow.worker.limits import TaskLimits, share_end
from batchflow.worker.log_records import LogSettings
from batchflow.worker.log_records import install as install_logging
from batchflow.worker.recent_values import NOT_BEGUN, RecentValues
from batchflow.worker.stdio_capture import LineBuffer


def flush_output() -> None:
    """Flush the output streams, as a worker may be killed at any time."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # none, gone, or closed by the user's function
            stream.flush()


BUNDLE_BYTES = 1_000_000
"""Maximum bytes of rows in a batch of short work, after which a worker returns the finished results."""


class LoadProgram(NamedTuple):
    """Driver to worker: work of a job follows, and its program as a parcel of its own, if it has one."""

    job: int
    state: ProcessState
    limits: Limits
    """Limits of one task, including the loading of program and records."""
    waits: bool
    """Whether the calls of the program are I/O-bound or async."""
    has_program: bool
    log_settings: LogSettings | None = None


class UnloadProgram(NamedTuple):
    """Driver to worker: forget a program."""

    job: int


class Worker:
    """Main loop of a worker: one answer per piece of work, in the order of arrival."""

    def __init__(
        self, driver: socket.socket, tally: WorkerCounters, permits: StartTokens, prints: LineBuffer
    ) -> None:
        self._driver = driver
        self._inbox = wire.MessageReader(driver, shares=True)
        self._arrivals = wire.SpinningSelector()
        self._arrivals.register(driver, selectors.EVENT_READ)
        self._prints = prints
        self._permits = permits
        self._tally = tally
        self._tally.pid = self._pid = os.getpid()
        share_end(tally.end)
        self._answered = 0
        self._broken = False
        """Whether the last work failed, so that no work sent ahead may start."""
        self._programs: dict[int, LoadedProgram] = {}
        self._folders: dict[int, str] = {}
        """Working directories of the driver, for calls of flows."""
        self._earlier = RecentValues()
        self._frames: deque[tuple[wire.ReceivedMessage, Any]] = deque()
        """Frames read ahead, each with its deserialized task if it is one."""

    def run(self) -> None:
        """Run work until the driver closes the socket."""
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
        except (TaskTimeout, MemoryError) as error:
            self._answer(over(UNKNOWN, error, limits))
        except (Exception, SystemExit) as error:
            self._answer(failed(UNKNOWN, "read", error))
        else:
            self._heed(message)

    def _later(self, job: int, index: int) -> Task | None:
        """Return a task of a job from the frames that have arrived."""
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
        """Return limits that no job exceeds, for work whose job is unknown until it is deserialized."""
        if not self._programs:
            return Limits()
        columns = zip(*(program.limits for program in self._programs.values()), strict=True)
        return Limits(*(None if None in column else max(column) for column in columns))

    def _heed(self, message: Any) -> None:
        if isinstance(message, LoadProgram):
            message.state.apply()
            message.state.apply_filters()
            install_logging(message.log_settings)
            if message.has_program:
                frame = self._inbox.frame()
                cells = self._tally.cells
                self._programs[message.job] = LoadedProgram(
                    frame.open, message.limits, waits=message.waits, cells=cells
                )
            else:
                self._folders[message.job] = message.state.folder
        elif isinstance(message, UnloadProgram):
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

    def _perform(self, job: int, work: WorkItem) -> Outcome:
        limits = Limits()
        try:
            if isinstance(work, Call):
                go_home(self._folders.get(job, ""))
                return self._earlier.called(job, work)
            if isinstance(work, PROGRAM_FREE_WORK):
                return run_without_program(work)
            program = self._programs[job]
            limits = program.limits
            runner = program.runner()
            return runner.perform(work, partial(self._later, job) if program.waits else None)
        except (TaskTimeout, MemoryError) as error:
            return over(work, error, limits)
        except BaseException as error:
            return lost(work, "call", error)
        finally:
            flush_output()
            if os.getpid() != self._pid:
                os._exit(0)  # a fork that the function made and did not end: its parent answers, and once

    def _answer_all(self, job: int, works: Sequence[WorkItem]) -> None:
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
            with TaskLimits(limits.seconds, None):  # pickling may run code of the user's
                parcel = wire.pack(lean_outcome(outcome))
        except TaskTimeout as error:
            late = over(UNKNOWN, error, limits)
            parcel = wire.pack(late._replace(printed=outcome.printed, stats=outcome.stats))
        except BaseException as error:
            parcel = wire.pack(lost(UNKNOWN, "convert", error)._replace(printed=outcome.printed))
        self._send(parcel)

    def _with_lines(self, outcome: Outcome) -> Outcome:
        """Return an outcome with the lines printed during it."""
        printed = self._prints.take() if self._prints else ()
        return outcome._replace(printed=printed) if printed else outcome

    def _send(self, parcel: wire.Message) -> None:
        try:
            parcel.send(self._driver)
        finally:
            parcel.close()
