"""Where the calls of a worker run that wait side by side: its own thread, a pool of them, an asyncio loop.

Whoever runs a task begins calls and waits until some have landed. It does so as an iterator that stops
wherever it has to wait, since waiting is a different thing in each of them. All of it stays in the main
thread, where a task that takes too long is told so by a signal.
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
"""Interval of the checks for tasks that arrived while calls are waited for and more could run."""


class ConcurrencyBackend(ABC):
    """Where calls run side by side, for as long as a worker has the program of the job."""

    holds_setup: ClassVar[bool] = False
    """Whether the value of ``setup=`` ends with them."""

    def __init__(self, program: Program, count: int) -> None:
        self.count = count
        self.landed: deque[RecordCall] = deque()
        """Calls that ended, until whoever began them takes them off."""
        self._program = program
        self._gate = RateGate(program.bucket)
        self._caller: RetryingCaller
        self._flying = 0

    @property
    def full(self) -> bool:
        """Whether so many calls are on their way that one has to land before another one begins."""
        return self._flying >= self.count

    def make(self, setup: Callable[[], Any]) -> Any:
        """Return the value of ``setup=``, made where it will be used."""
        return setup()

    def ready(self, extra: tuple[Any, ...]) -> None:
        """Take over what follows the record in each call."""
        self._caller = RetryingCaller(self._program, extra, self._gate, self._sleep)

    def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def suspects(self, calls: Sequence[RecordCall]) -> Sequence[RecordCall]:
        """Return the calls among these that may keep the task from going on at this moment."""
        return calls

    @abstractmethod
    def begin(self, call: RecordCall) -> None:
        """Begin a call."""

    @abstractmethod
    def run(self, steps: Iterator[None]) -> None:
        """Go through an iterator, waiting at each step until a call has landed; raises what ends a task."""

    @abstractmethod
    def settle(self) -> None:
        """Give up what is on its way, of a task that cannot be kept."""

    @abstractmethod
    def close(self, value: Any = None, *, broken: bool = False) -> None:
        """Give up what is on its way and end for good.

        Parameters
        ----------
        value
            Of ``setup=``: a client that can be closed asynchronously is.
        broken
            A task of this worker broke off, and its limits hold on until all of it has ended.
        """


class InlineBackend(ConcurrencyBackend):
    """One call after the other, in this thread."""

    def begin(self, call: RecordCall) -> None:
        """Call the function."""
        self._caller.call(call)
        self.landed.append(call)

    def run(self, steps: Iterator[None]) -> None:
        """Go through an iterator, which never has to wait."""
        for _ in steps:
            pass

    def settle(self) -> None:
        """Drop the calls that nobody took: nothing is on its way."""
        self.landed.clear()

    def close(self, value: Any = None, *, broken: bool = False) -> None:
        """Nothing to end."""


class ThreadBackend(ConcurrencyBackend):
    """A pool of threads, for plain functions."""

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
        with suppress(TaskTimeout):  # which comes a moment too late for the call that it was meant for
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
        """Hand a call to the next thread that is free."""
        self._flying += 1
        self._begun.put(call)

    def run(self, steps: Iterator[None]) -> None:
        """Go through an iterator."""
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
        """Drop the calls that no thread has begun, and wait for the others."""
        with suppress(queue.Empty):
            while True:
                self._begun.get_nowait()
                self._flying -= 1
        for _ in range(self._flying):
            self._ended.get()
        self._flying = 0
        self.landed.clear()

    def close(self, value: Any = None, *, broken: bool = False) -> None:
        """Let the threads end; those of a task that broke off are interrupted, or the process goes with them."""
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
    """Have a thread told that its time is over, but not in the middle of an import."""
    end = time.monotonic() + GRACE
    while is_importing(sys._current_frames().get(thread)) and time.monotonic() < end:
        time.sleep(IMPORT_SECONDS)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(TaskTimeout))


_END = object()


class AsyncioBackend(ConcurrencyBackend):
    """An asyncio loop, for async functions; it lives on between tasks, and with it what ``setup=`` made."""

    holds_setup: ClassVar[bool] = True

    def __init__(self, program: Program, count: int) -> None:
        super().__init__(program, count)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._hear)
        self._tasks: dict[Any, RecordCall] = {}
        """Tasks of asyncio and the call that each is at."""
        self._steps: Iterator[None] = iter(())
        self._over: asyncio.Future[None] | None = None
        self._broken: BaseException | None = None
        self._seeks = False
        """A lane whose call has landed is looking for the next one,"""
        self._found: RecordCall | None = None
        """which is this: so a lane goes on, where each call with a task of its own would cost twice as much."""

    def make(self, setup: Callable[[], Any]) -> Any:
        """Return the value of ``setup=``, which may be async; either way it is called inside the loop."""

        async def made() -> Any:
            value = setup()
            return await value if inspect.isawaitable(value) else value

        return self._run(made())

    def begin(self, call: RecordCall) -> None:
        """Begin a call, in the lane that looks for one or in a new one."""
        self._flying += 1
        if self._seeks:
            self._seeks, self._found = False, call
            return
        task = self._loop.create_task(self._fly(call))
        self._tasks[task] = call
        task.add_done_callback(self._tasks.pop)

    def suspects(self, calls: Sequence[RecordCall]) -> Sequence[RecordCall]:
        """Return the call that has the loop if any has it, since it keeps all others waiting."""
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
        """Have the iterator go on, since a call has landed; returns the first one that it begins."""
        self._seeks = True
        try:
            if self._broken is None:
                over = next(self._steps, _END) is _END
                found, self._found = self._found, None  # which else held its block until the next one
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
        """Take over what was raised where asyncio called something; it would go on as if it were nothing."""
        error = context.get("exception")
        if isinstance(error, PASSING):
            self._broken = error
            self._end()
        elif not loop.is_closed():  # what was left open then is told of nobody
            loop.default_exception_handler(context)

    def run(self, steps: Iterator[None]) -> None:
        """Go through an iterator.

        Raises
        ------
        RuntimeError
            If the function cancelled the tasks of the loop or stopped it.
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
        """Run the loop until a coroutine ends: in another thread, where this one has a loop running already."""
        if not _is_looping():
            return self._loop.run_until_complete(coroutine)
        from concurrent.futures import ThreadPoolExecutor  # in a notebook, without worker processes

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self._loop.run_until_complete, coroutine).result()

    def settle(self) -> None:
        """Cancel what is on its way, and give it a moment to end."""
        self._steps, self._found = iter(()), None
        if self._tasks:
            for task in self._tasks:
                task.cancel()
            self._run(_waited(list(self._tasks)))
        self._tasks.clear()
        self._flying = 0
        self.landed.clear()

    def close(self, value: Any = None, *, broken: bool = False) -> None:
        """Cancel what is on its way, close the client that ``setup=`` made, and the loop."""
        self.settle()
        with suppress(Exception, asyncio.CancelledError):  # it is over: nobody is left to be told
            self._run(_closed(value))
        self._loop.close()


def _is_looping() -> bool:
    """Whether this thread runs a loop, as that of a notebook does."""
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
    """Return where the calls of a job run."""
    count = program.side_by_side or 1
    if is_async(program.fn):
        return AsyncioBackend(program, count)
    return ThreadBackend(program, count) if program.concurrency else InlineBackend(program, 1)
