"""Calls of the function with one record, with retries and rate limiting."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from batchflow.core.rate import RateLimiter
from batchflow.errors import RetryAfter
from batchflow.worker.program import Program
from batchflow.worker.record_task import tried
from batchflow.worker.task import PASSING


class RecordCall:
    """One record's call of the function."""

    __slots__ = ("at", "entered", "error", "group", "record", "since", "tries", "values")

    def __init__(self, group: Any, at: int, record: Any) -> None:
        self.group: Any = group
        self.at: int = at
        self.record: Any = record
        self.values: list[Any] = []
        self.error: BaseException | None = None
        self.tries: int = 0
        self.since: float = 0.0
        self.entered: float = 0.0
        """`time.monotonic` at the start of the current call; 0 while the function is not running."""


class RateGate:
    """Rate limiter of one worker: lets its calls through one by one, as the rate of the job allows.

    Only the first call in line asks the shared limiter, so that a hundred waiting calls do not all poll it.
    """

    def __init__(self, bucket: RateLimiter | None) -> None:
        self._bucket = bucket
        self._line = threading.Lock()
        self._async_line = asyncio.Lock()

    def enter(self, sleep: Callable[[float], Any]) -> None:
        """Wait until a call may start."""
        if self._bucket is not None:
            with self._line:
                while seconds := self._bucket.reserve():
                    sleep(seconds)

    async def entered(self) -> None:
        """Wait until a call may start, without blocking the event loop."""
        if self._bucket is not None:
            async with self._async_line:
                while seconds := self._bucket.reserve():
                    await asyncio.sleep(seconds)

    def heed(self, error: BaseException | None) -> None:
        """Pause all calls of the job if the function raised `RetryAfter`."""
        if self._bucket is not None and isinstance(error, RetryAfter):
            self._bucket.pause(error.seconds)


class RetryingCaller:
    """Calls the function of a job and retries failed calls.

    Parameters
    ----------
    extra
        Arguments that follow the record.
    gate
        Rate limiter to pass before each call.
    sleep
        Function that waits in a thread.
    """

    def __init__(
        self, program: Program, extra: tuple[Any, ...], gate: RateGate, sleep: Callable[[float], Any]
    ) -> None:
        self._fn = partial(program.fn, **program.args) if program.args else program.fn
        self._extra = extra
        self._retry = program.retry
        self._gate = gate
        self._sleep = sleep
        self._pid = os.getpid()

    def call(self, call: RecordCall) -> None:
        """Call the function in this thread until it succeeds or a retry is of no use."""
        while True:
            self._gate.enter(self._sleep)
            call.entered = time.monotonic()
            columns = ((value,) for value in (call.record, *self._extra))
            seconds = self._ended(call, *tried(map(self._fn, *columns)))
            if seconds is None:
                return
            self._sleep(seconds)

    async def call_async(self, call: RecordCall) -> None:
        """Await the function until it succeeds or a retry is of no use."""
        while True:
            await self._gate.entered()
            call.entered = time.monotonic()
            seconds = self._ended(call, *await self._awaited(call.record))
            if seconds is None:
                return
            await asyncio.sleep(seconds)

    async def _awaited(self, record: Any) -> tuple[list[Any], BaseException | None]:
        try:
            given = self._fn(record, *self._extra)
            if hasattr(given, "__aiter__"):
                return [value async for value in given if value is not None], None
            return tried(iter((await given,)))
        except PASSING:
            raise
        except BaseException as error:
            return [], error

    def _ended(self, call: RecordCall, values: list[Any], error: BaseException | None) -> float | None:
        """Record the result of an attempt; return the seconds until the next one, ``None`` if there is none."""
        if os.getpid() != self._pid:
            os._exit(0)  # a fork that the function started and did not end
        call.entered = 0.0
        call.tries += 1
        call.values, call.error = values, error
        self._gate.heed(error)
        if error is None or not self._retry.again(error, call.tries):
            return None
        return self._retry.after([error], call.tries)
