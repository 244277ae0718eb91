"""Validation of job options that cannot work for any input."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from batchflow.core.functions import describe, is_async
from batchflow.core.rate import parse_rate
from batchflow.core.resources import Resources, format_bytes, parse_bytes
from batchflow.core.retry import Retry
from batchflow.errors import FunctionError, ResourceError, UsageError

if TYPE_CHECKING:
    from batchflow.plan import JobSpec

LONGEST = 10**8
"""Maximum duration in seconds, three years: within the range of clocks on every platform."""
_LEAST_MEMORY = 20_000_000
"""Minimum bytes of a task, for loaded modules: codecs, pandas, the user's modules."""


def check_spec(spec: JobSpec) -> None:
    """Refuse options that cannot work for any input; raises `UsageError`."""
    _check_function(spec)
    _check_numbers(spec)


def _check_function(spec: JobSpec) -> None:
    for name in ("fn", "setup", "combine"):
        value = getattr(spec, name)
        if not callable(value) and not (value is None and name != "fn"):
            message = f"{name}={value!r} cannot be called: pass a function"
            raise FunctionError(message)
    _check_async(spec)
    positional = [object()] * (2 if spec.setup else 1)
    try:
        inspect.signature(spec.fn).bind(*positional, **spec.args)
    except TypeError as error:
        given = ", ".join([spec.per, *(["value of setup="] if spec.setup else []), *spec.args])
        message = f"{describe(spec.fn)} cannot be called with ({given}), as the job does: {error}"
        raise FunctionError(message) from error
    except ValueError:
        pass  # a builtin without a signature


def _check_async(spec: JobSpec) -> None:
    """Refuse async functions in places that do not await them."""
    if spec.per == "batch" and is_async(spec.fn):
        message = (
            f"{describe(spec.fn)} is an async function, which is for records: use map_records (per='record'), "
            "or wrap it in a plain one that calls asyncio.run"
        )
        raise FunctionError(message)
    if spec.setup and is_async(spec.setup) and not is_async(spec.fn):
        message = f"setup={describe(spec.setup)} is async, but the function is not: make both async, or none"
        raise FunctionError(message)
    if spec.combine and is_async(spec.combine):
        message = f"combine={describe(spec.combine)} is async, but it waits for nothing: make it a plain function"
        raise FunctionError(message)


def _check_waiting(spec: JobSpec) -> None:
    calls: Any = spec.concurrency
    if calls is not None and (not isinstance(calls, int) or isinstance(calls, bool) or calls < 1):
        message = f"concurrency={calls!r} must be a whole number of calls at once in each worker, 1 or more"
        raise UsageError(message)
    if calls is not None and spec.per == "batch":
        message = (
            f"concurrency={calls} is for functions of records: a worker calls a function of batches once at a "
            "time, so leave it out, or have more workers with per_task=Resources(cpus=0)"
        )
        raise UsageError(message)
    if spec.rate is not None:
        parse_rate(spec.rate)


def _check_numbers(spec: JobSpec) -> None:
    if spec.per not in ("record", "batch"):
        message = f"per={spec.per!r} must be 'record' or 'batch'"
        raise UsageError(message)
    check_max_errors(spec.max_errors)
    _check_limits(spec)
    _check_waiting(spec)
    if spec.combine is not None and spec.into is not None:
        message = "combine= gives one small table: leave out into= and write the result's table"
        raise UsageError(message)
    parse_bytes(spec.part_size)


def check_max_errors(limit: Any) -> None:
    """Refuse an invalid error limit; raises `UsageError`."""
    if limit is None:
        return
    count = isinstance(limit, int) and not isinstance(limit, bool)
    if not count and not (isinstance(limit, float) and 0 <= limit <= 1):
        message = f"max_errors={limit!r} must be a count, a fraction from 0.0 to 1.0, or None for all"
        raise UsageError(message)
    if limit < 0:
        message = f"max_errors={limit} is negative: 0 stops at the first, None collects all"
        raise UsageError(message)


def _check_limits(spec: JobSpec) -> None:
    retry: Any = spec.retry
    timeout: Any = spec.timeout
    for name in ("limits", "per_task"):
        amount = getattr(spec, name)
        if not isinstance(amount, Resources):
            message = f"{name}={amount!r} must be Resources, like {name}=bf.Resources(cpus=2)"
            raise UsageError(message)
    if not isinstance(retry, Retry):
        message = f"retry={retry!r} must be a Retry, like retry=Retry(attempts=3)"
        raise UsageError(message)
    if timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout <= LONGEST):
        message = f"timeout={timeout!r} must be a number of seconds over 0, or None for as long as it takes"
        raise UsageError(message)
    memory = spec.per_task.nbytes
    if memory is not None and memory < _LEAST_MEMORY:
        message = (
            f"per_task memory={format_bytes(memory)} is too little for any task: "
            f"give {format_bytes(_LEAST_MEMORY)} or more, on top of an idle worker"
        )
        raise ResourceError(message)
