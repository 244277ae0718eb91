"""Failures as values: whose record, in which phase, with the user's part of the traceback."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from functools import cache
from typing import Any

from batchflow.errors import RetryAfter, WorkerDied
from batchflow.model import Failed, Failure, Inspect, Phase, Task, Work
from batchflow.resources import format_bytes
from batchflow.retry import NEVER, Retry
from batchflow.sources.base import Block, explain, show
from batchflow.worker import hints
from batchflow.worker.guard import Overtime, give_back, too_slow
from batchflow.worker.program import Limits

_HOST = socket.gethostname()
_HERE = os.path.dirname(os.path.dirname(__file__)) + os.sep  # noqa: PTH120 - pathlib takes 8 ms to load


@cache
def worker_name() -> str:
    """Return what names this process in reports: host and process number."""
    return f"{_HOST}:{os.getpid()}"


os.register_at_fork(after_in_child=worker_name.cache_clear)


def failed(
    work: Work, phase: Phase, error: BaseException, records: int | None = None, retry: Retry = NEVER
) -> Failed:
    """Return the outcome of work that gave nothing back."""
    task = work.task if isinstance(work, Inspect) else work
    span = task.chunk.spans[0] if isinstance(task, Task) else None
    failure = Failure(
        span.input.uri if span else "",
        span.start if span else None,
        span.stop if span else None,
        None,
        None,
        phase,
        type(error).__name__,
        explain(error),
        user_traceback(error),
        worker=worker_name(),
    )
    after = error.seconds if isinstance(error, RetryAfter) else None
    return Failed(work.key, failure, records, helped=after is not None or retry.helps(error), after=after)


def lost(
    work: Work, phase: Phase, error: BaseException, worker: str | None = None, *, retry: Retry = NEVER
) -> Failed:
    """Return the outcome of work that broke off; halving finds the record at fault.

    Parameters
    ----------
    worker
        Name of the worker, where it is not this process.
    """
    outcome = failed(work, phase, error, None, retry)._replace(died=True)
    return outcome if worker is None else outcome._replace(failure=outcome.failure._replace(worker=worker))


def died(work: Work, message: str, worker: str, retry: Retry, *, suspect: bool = False) -> Failed:
    """Return the outcome of work whose worker ended.

    Parameters
    ----------
    suspect
        Whether the cause may lie outside of the work.
    """
    return lost(work, "worker", WorkerDied(message), worker, retry=retry)._replace(suspect=suspect)


def of_record(
    block: Block,
    at: int,
    phase: Phase,
    error: BaseException,
    attempts: int = 1,
    hint: Callable[[BaseException, Any], str] = hints.of_record,
) -> Failure:
    """Return the failure of one record of a block, with a hint at what it came of."""
    number = block.numbers[at]
    start, stop = block.locate(number)
    record = block.record(at)
    return Failure(
        block.span.input.uri,
        start,
        stop,
        number,
        show(record),
        phase,
        type(error).__name__,
        explain(error) + hint(error, record),
        user_traceback(error),
        attempts,
    )


def placed(outcome: Failed, block: Block, at: int) -> Failed:
    """Return an outcome with the place of the one record that it is about."""
    number = block.numbers[at]
    start, stop = block.locate(number)
    failure = outcome.failure._replace(
        source=block.span.input.uri, start=start, stop=stop, record=number, payload=show(block.record(at))
    )
    return outcome._replace(failure=failure)


def user_traceback(error: BaseException) -> str:
    """Return a traceback of the user's frames only, without those of batchflow."""
    import traceback  # only where something failed

    summary = traceback.TracebackException.from_exception(error, limit=-50)
    summary.stack = traceback.StackSummary.from_list(
        [frame for frame in summary.stack if not frame.filename.startswith(_HERE)]
    )
    return "".join(summary.format()) if summary.stack else ""


def over(work: Work, error: Overtime | MemoryError, limits: Limits, retry: Retry = NEVER) -> Failed:
    """Return the outcome of work that broke off at a limit."""
    if isinstance(error, Overtime):
        assert limits.seconds is not None
        slow = too_slow(work, limits.seconds).with_traceback(error.__traceback__)
        return lost(work, "timeout", slow, retry=retry)
    outcome = lost(work, "memory", _too_much(error, limits.memory), retry=retry)
    forget(error)
    give_back()
    return outcome


def forget(error: BaseException) -> None:
    """Let go of what a function held when it raised, all of which hangs on the frames of its traceback."""
    error.__traceback__ = error.__context__ = error.__cause__ = None


def _too_much(error: MemoryError, cap: int | None) -> MemoryError:
    """Return what a task is told to have failed of that took too much memory."""
    told = f": {error}" if str(error) else ""
    over = f"the task took more than per_task memory={format_bytes(cap)}" if cap else "there is no more memory"
    return MemoryError(f"{over}{told}").with_traceback(error.__traceback__)
