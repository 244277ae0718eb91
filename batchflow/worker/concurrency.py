"""Concurrency backends of a worker: inline calls, a thread pool, or an asyncio event loop.

A task starts calls and waits until some have finished. It is written as an iterator that yields wherever it
must wait, because each backend waits differently. The iterator always runs in the main thread, where a
signal can interrupt a task that takes too long.
"""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import queue
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from batchflow.core.functions import is_async
from batchflow.worker.invocation import RateGate, RecordCall, RetryingCaller
from batchflow.worker.limits import GRACE, IMPORT_SECONDS, TaskTimeout, is_importing
from batchflow.worker.program import Program
from batchflow.worker.task import PASSING

ARRIVAL_SECONDS = 0.05
"""Interval of the checks for newly arrived tasks while calls are pending and more could run."""


class ConcurrencyBackend(ABC):
    """Runs concurrent calls, for as long as a worker has the program of the job."""

    holds_setup: ClassVar[bool] = False
    """Whether closing the backend also ends the value of ``setup=``."""

    def __init__(self, program: Program, count: int) -> None:
        self.count = count
        self.landed: deque[RecordCall] = deque()
        """Finished calls that the task has not collected yet."""
        self._program = program
        self._gate = RateGate(program.bucket)
        self._caller: RetryingCaller
        self._flying = 0

    @property
    def full(self) -> bool:
        """Whether all slots are busy, so that a call must finish before another can start."""
        return self._flying >= self.count

    def make(self, setup: Callable[[], Any]) -> Any:
        """Return the value of ``setup=``, created in the context that uses it."""
        return setup()

    def ready(self, extra: tuple[Any, ...]) -> None:
        """Set the arguments that follow the record in each call."""
        self._caller = RetryingCaller(self._program, extra, self._gate, self._sleep)

    def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def suspects(self, calls: Sequence[RecordCall]) -> Sequence[RecordCall]:
        """Return the calls that may be blocking the task at this moment."""
        return calls

    @abstractmethod
    def begin(self, call: RecordCall) -> None:
        """Start a call."""

    @abstractmethod
    def run(self, steps: Iterator[None]) -> None:
        """Advance an iterator, waiting at each step until a call finishes; raises errors that end the task."""

    @abstractmethod
    def settle(self) -> None:
        """Abandon all pending calls of a task that failed."""

    @abstractmethod
    def close(self, value: Any = None, *, broken: bool = False) -> None:
        """Abandon all pending calls and shut down.

        Parameters
        ----------
        value
            Value of ``setup=``; if it has an async ``aclose`` or ``close``, that is awaited.
        broken
            Whether a task of this worker was aborted; its limits then apply until all its calls have ended.
        """


class InlineBackend(ConcurrencyBackend):
    """Backend that makes one call at a time in the current thread."""

    def begin(self, call: RecordCall) -> None:
        """Call the function immediately."""
        self._caller.call(call)
        self.landed.append(call)

    def run(self, steps: Iterator[None]) -> None:
        """Advance an iterator that never has to wait."""
        for _ in steps:
            pass

    def settle(self) -> None:
        """Drop uncollected calls; none are pending."""
        self.landed.clear()

    def close(self, value: Any = None, *, broken: bool = False) -> None:
        """Do nothing: there is nothing to shut down."""


class ThreadBackend(ConcurrencyBackend):
    """Thread pool for plain functions."""

    def __init__(self, program: Program, count: int) -> None:
        super().__init__(program, count)
        self._begun: queue.SimpleQueue[RecordCall | None] = queue.SimpleQueue()
        self._ended: queue.SimpleQueue[RecordCall] = queue.SimpleQueue()
        self._over = threading.Event()
        self._busy: set[int] = set()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        with suppress(TaskTimeout):  # may arrive just after the call that it was meant for
            while (call := self._begun.get()) is not None:
                self._busy.add(threading.get_ident())
                try:
                    self._caller.call(call)
                except BaseException as error:
                    call.error = error
                self._busy.discard(threading.get_ident())
                self._ended.put(call)

    def _sleep(self, seconds: float) -> None:
        if self._over.wait(seconds):
            raise TaskTimeout

    def begin(self, call: RecordCall) -> None:
        """Hand a call to the next free thread."""
        self._flying += 1
        self._begun.put(call)

    def run(self, steps: Iterator[None]) -> None:
        """Advance an iterator, waiting at each step until a call finishes."""
        for _ in steps:
            with suppress(queue.Empty):
                self._land(self._ended.get(timeout=None if self.full else ARRIVAL_SECONDS))
                while True:
                    self._land(self._ended.get_nowait())

    def _land(self, call: RecordCall) -> None:
        self._flying -= 1
        if isinstance(call.error, PASSING):
            raise call.error
        self.landed.append(call)

    def settle(self) -> None:
        """Drop the calls that no thread has started and wait for the others."""
        with suppress(queue.Empty):
            while True:
                self._begun.get_nowait()
                self._flying -= 1
        for _ in range(self._flying):
            self._ended.get()
        self._flying = 0
        self.landed.clear()

    def close(self, value: Any = None, *, broken: bool = False) -> None:
        """Shut down the threads; those of an aborted task are interrupted, or else the process ends with them."""
        del value
        self._over.set()
        with suppress(queue.Empty):
            while True:
                self._begun.get_nowait()
        for _ in self._threads:
            self._begun.put(None)
        for thread in list(self._busy):
            _interrupt(thread)
        if broken:
            for worker in self._threads:
                worker.join()


def _interrupt(thread: int) -> None:
    """Raise `TaskTimeout` in a thread, but not in the middle of an import."""
    end = time.monotonic() + GRACE
    while is_importing(sys._current_frames().get(thread)) and time.monotonic() < end:
        time.sleep(IMPORT_SECONDS)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TaskTimeout))


_END = object()


class AsyncioBackend(ConcurrencyBackend):
    """asyncio event loop for async functions; it outlives tasks, and so do objects that ``setup=`` created."""

    holds_setup: ClassVar[bool] = True

    def __init__(self, program: Program, count: int) -> None:
        super().__init__(program, count)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._hear)
        self._tasks: dict[Any, RecordCall] = {}
        """Calls by the asyncio task that is running them."""
        self._steps: Iterator[None] = iter(())
        self._over: asyncio.Future[None] | None = None
        self._broken: BaseException | None = None
        self._seeks = False
        """Whether a lane whose call finished is looking for its next one."""
        self._found: RecordCall | None = None
        """Next call of that lane. Reusing a lane costs half as much as a new asyncio task for each call."""

    def make(self, setup: Callable[[], Any]) -> Any:
        """Return the value of ``setup=``, which may be async; it is always called inside the loop."""

        async def made() -> Any:
            value = setup()
            return await value if inspect.isawaitable(value) else value

        return self._run(made())

    def begin(self, call: RecordCall) -> None:
        """Start a call in the lane that is looking for one, or in a new lane."""
        self._flying += 1
        if self._seeks:
            self._seeks, self._found = False, call
            return
        task = self._loop.create_task(self._fly(call))
        self._tasks[task] = call
        task.add_done_callback(self._tasks.pop)

    def suspects(self, calls: Sequence[RecordCall]) -> Sequence[RecordCall]:
        """Return the call that is blocking the loop, if any; otherwise all calls."""
        task = asyncio.current_task(self._loop)
        return calls if task is None else [call for call in calls if call is self._tasks.get(task)]

    async def _fly(self, call: RecordCall | None) -> None:
        task = asyncio.current_task()
        while call is not None:
            self._tasks[task] = call
            try:
                await self._caller.call_async(call)
            except PASSING as error:
                self._broken = error
            self._flying -= 1
            self.landed.append(call)
            call = self._go_on()

    def _go_on(self) -> RecordCall | None:
        """Advance the iterator after a call has finished; return the first call that it starts."""
        self._seeks = True
        try:
            if self._broken is None:
                over = next(self._steps, _END) is _END
                found, self._found = self._found, None  # a kept reference would hold the block until the next call
                if over:
                    self._end()
                return found
        except BaseException as error:
            self._broken = error
        finally:
            self._seeks = False
        self._end()
        return None

    def _advance(self) -> None:
        try:
            if next(self._steps, _END) is _END:
                self._end()
        except BaseException as error:
            self._broken = error
            self._end()

    def _end(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def _hear(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Record an error raised in a callback of asyncio, which would otherwise only log it."""
        error = context.get("exception")
        if isinstance(error, PASSING):
            self._broken = error
            self._end()
        elif not loop.is_closed():  # after closing, leftovers are ignored
            loop.default_exception_handler(context)

    def run(self, steps: Iterator[None]) -> None:
        """Advance an iterator inside the loop.

        Raises
        ------
        RuntimeError
            If the function cancelled tasks of the loop or stopped it.
        """
        drive = self._loop.create_task(self._drive(steps))
        try:
            self._run(drive)
        except (asyncio.CancelledError, RuntimeError) as error:
            if drive.done() and not drive.cancelled():
                raise
            drive.cancel()
            message = (
                "the function cancelled or stopped the event loop that all its calls run in: "
                "let it cancel only tasks that it created"
            )
            raise RuntimeError(message) from error

    async def _drive(self, steps: Iterator[None]) -> None:
        self._steps, self._broken = steps, None
        if next(steps, _END) is _END:
            return
        self._over = self._loop.create_future()
        while not self._over.done():
            await asyncio.wait([self._over], timeout=ARRIVAL_SECONDS)
            if not self._over.done() and not self.full:
                self._advance()
        if self._broken is not None:
            raise self._broken

    def _run(self, coroutine: Awaitable[Any]) -> Any:
        """Run a coroutine in the loop; in another thread if this thread already runs a loop."""
        if not _is_looping():
            return self._loop.run_until_complete(coroutine)
        from concurrent.futures import ThreadPoolExecutor  # in a notebook, without worker processes

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self._loop.run_until_complete, coroutine).result()

    def settle(self) -> None:
        """Cancel all pending calls and give them a moment to end."""
        self._steps, self._found = iter(()), None
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            self._run(_waited(list(self._tasks)))
        self._tasks.clear()
        self._flying = 0
        self.landed.clear()

    def close(self, value: Any = None, *, broken: bool = False) -> None:
        """Cancel all pending calls, close the client that ``setup=`` created and close the loop."""
        self.settle()
        with suppress(Exception, asyncio.CancelledError):  # too late to report errors
            self._run(_closed(value))
        self._loop.close()


def _is_looping() -> bool:
    """Whether this thread already runs an event loop, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _waited(tasks: list[asyncio.Task[None]]) -> None:
    await asyncio.wait(tasks, timeout=GRACE)


async def _closed(value: Any) -> None:
    for name in ("aclose", "close"):
        close = getattr(value, name, None)
        if inspect.iscoroutinefunction(close):
            await asyncio.wait_for(close(), GRACE)
            break
    await asyncio.get_running_loop().shutdown_asyncgens()


def concurrency_backend(program: Program) -> ConcurrencyBackend:
    """Return the concurrency backend for a job."""
    count = program.side_by_side or 1
    if is_async(program.fn):
        return AsyncioBackend(program, count)
    return ThreadBackend(program, count) if program.concurrency else InlineBackend(program, 1)
