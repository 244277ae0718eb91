"""One call of a flow step: unpickle the arguments, call the function, pickle the result."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Callable, Coroutine
from contextlib import nullcontext
from contextvars import copy_context
from functools import partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, ClassVar

from batchflow.core.outcomes import Outcome, Phase, Stats, Succeeded
from batchflow.core.serialization import Pickled, pickle_value
from batchflow.core.work import ArgumentSlot, Call, Partial, ReturnedSteps, Skipped, StepValue
from batchflow.io.arrow.rows import Rows
from batchflow.io.step_cache import CachedValue
from batchflow.worker.failures import failed, over, worker_name
from batchflow.worker.limits import TaskLimits, TaskTimeout
from batchflow.worker.program import Limits
from batchflow.worker.task import peak_memory


class StepHandle:
    """Base class of references to step results; a function that returns some has returned more steps to run."""

    __slots__ = ()
    pickled: ClassVar[bool] = False
    """Whether an instance has been pickled, which detects instances anywhere inside a value."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        StepHandle.pickled = True
        return super().__reduce_ex__(protocol)


def called(call: Call, *, guarded: bool = True) -> Outcome:
    """Call the function of a step, without the program of a job.

    Parameters
    ----------
    guarded
        Whether this process is a worker, which enforces limits.
    """
    limits = Limits(call.seconds, call.memory)
    progress = _Progress(call)
    try:
        with TaskLimits(*limits) if guarded and any(limits) else nullcontext():
            return progress.outcome()
    except (TaskTimeout, MemoryError) as error:
        return over(call, error, limits, call.retry)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return failed(call, progress.phase, error, retry=call.retry)


class _Progress:
    """State of a running call, including its phase."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.phase: Phase = "read"

    def outcome(self) -> Succeeded:
        began, start = time.time(), time.perf_counter()
        call = self._call
        args, kwargs = call.arguments.open(partial(found, call) if call.places else None)
        self.phase = "worker"
        fn = call.fn.fn
        self.phase = "call"
        payload: Any = Skipped()
        if call.when is None or _wanted(call, args, kwargs):
            value = finished_value(fn(*args, **kwargs))
            self.phase = "convert"
            payload = self._payload(value)
        stats = Stats(worker_name(), began, time.perf_counter() - start, peak_memory=peak_memory())
        told = call.digests and isinstance(payload, Pickled | CachedValue)
        return Succeeded(call.key, stats, (), payload, (), payload.digest if told else "")

    def _payload(self, value: Any) -> Pickled | CachedValue | ReturnedSteps:
        """Return a value for transport: pickled, or as a reference to its cache file."""
        StepHandle.pickled = False
        packed = pickle_value(value)
        if StepHandle.pickled:
            return ReturnedSteps(packed)
        if self._call.keep is None:
            return packed
        self.phase = "write"
        kept: CachedValue = self._call.keep.keep(value)
        return kept


def found(call: Call, at: int) -> Any:
    """Return the value for an argument slot."""
    place: ArgumentSlot = call.places[at]
    values = [value_of(call.values[number]) for number in place.values if number is not None]
    value: Any = values if not place.single else values[0] if values else None
    if place.tolerant is None:
        return value
    errors, succeeded, unsuccessful = place.tolerant
    return Partial(value, errors, succeeded, unsuccessful)


def value_of(given: StepValue, fetch: Callable[[Any], Any] | None = None) -> Any:
    """Return the value of a step; rows of a job become one table, or a list if no table can hold them.

    Parameters
    ----------
    fetch
        Resolves an executor's reference to a payload.
    """
    payloads = given.payloads if fetch is None else tuple(map(fetch, given.payloads))
    if not given.rows:
        (packed,) = payloads
        return packed.open()
    rows = Rows(segment for part in payloads for segment in part.segments)
    try:
        return rows.table()
    except TypeError:  # SchemaError: arbitrary objects or incompatible types
        return rows.values()


def _wanted(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the condition of a step holds."""
    if isinstance(call.when, int):
        return bool(found(call, call.when))
    return bool(finished_value(call.when.fn(*args, **kwargs)))


def finished_value(value: Any) -> Any:
    """Return the final value of a coroutine or generator."""
    if isinstance(value, CoroutineType | AsyncGeneratorType):
        return _run(value if isinstance(value, CoroutineType) else _listed(value))
    return list(value) if isinstance(value, GeneratorType) else value


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine; in a separate thread if this one already runs a loop, as in a notebook."""
    import asyncio  # imported only if needed, 30 ms

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    from concurrent.futures import ThreadPoolExecutor  # on Serial only

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_context().run, asyncio.run, coroutine).result()


async def _listed(values: AsyncIterable[Any]) -> list[Any]:
    return [value async for value in values]
