"""Failures as values: record, phase, and the user's part of the traceback."""

from __future__ import annotations

import os
import socket
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any

from batchflow.core.outcomes import TRACEBACK_LIMIT, TRACEBACKS, Failed, Failure, Phase
from batchflow.core.package import PACKAGE_DIR
from batchflow.core.resources import format_bytes
from batchflow.core.retry import NEVER, Retry
from batchflow.core.work import CountRecords, Task, WorkItem
from batchflow.errors import RetryAfter, WorkerDied
from batchflow.io.sources.base import Block, explain, show, tell
from batchflow.worker import hints
from batchflow.worker.limits import TaskTimeout, give_back, too_slow
from batchflow.worker.program import Limits

if TYPE_CHECKING:
    from traceback import StackSummary

_HOST = socket.gethostname()
_FRAMES = 50
"""Maximum number of innermost frames in a traceback."""
_HEAD = 500
"""Characters kept from the start of a long traceback; the rest comes from its end, which is most useful."""
_CHAIN = 8
"""Maximum length of an exception chain whose traceback is built from cached frames."""
_MOST_FRAMES = 256
_SUGGESTING = (NameError, AttributeError, ImportError)
_UNUSUAL = (SyntaxError, BaseExceptionGroup, *(_SUGGESTING if sys.version_info >= (3, 12) else ()))
"""Exceptions whose traceback shows more than the message: carets, sub-exceptions or suggestions."""
_BARE = ("__main__", "builtins")
_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"
_cached_frames: dict[tuple[int, ...], tuple[str, list[CodeType]]] = {}
"""Text of frames, with their code objects, by the ids of code objects and instruction offsets."""


@cache
def worker_name() -> str:
    """Return the name of this process in reports: host and process id."""
    return f"{_HOST}:{os.getpid()}"


os.register_at_fork(after_in_child=worker_name.cache_clear)


def failed(
    work: WorkItem, phase: Phase, error: BaseException, records: int | None = None, retry: Retry = NEVER
) -> Failed:
    """Return the outcome of failed work."""
    task = work.task if isinstance(work, CountRecords) else work
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
    work: WorkItem, phase: Phase, error: BaseException, worker: str | None = None, *, retry: Retry = NEVER
) -> Failed:
    """Return the outcome of work that was aborted; halving then finds the record at fault.

    Parameters
    ----------
    worker
        Name of the worker, if it is not this process.
    """
    outcome = failed(work, phase, error, None, retry)._replace(died=True)
    return outcome if worker is None else outcome._replace(failure=outcome.failure._replace(worker=worker))


def died(work: WorkItem, message: str, worker: str, retry: Retry, *, suspect: bool = False) -> Failed:
    """Return the outcome of work whose worker died.

    Parameters
    ----------
    suspect
        Whether the cause may be outside of the work.
    """
    return lost(work, "worker", WorkerDied(message), worker, retry=retry)._replace(suspect=suspect)


class TracebackCount:
    """Traceback limiter for the failures of one job in one process.

    The scheduler keeps only the first `TRACEBACKS` tracebacks of a kind per job. A process therefore need not
    format or send more than that many.
    """

    def __init__(self) -> None:
        self._kinds: Counter[tuple[type, int, int]] = Counter()

    def of(self, error: BaseException) -> str:
        """Return the traceback of an error, or ``""`` over the limit."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        if trace is None:
            return ""
        kind = (type(error), id(trace.tb_frame.f_code), trace.tb_lineno)
        self._kinds[kind] += 1
        return user_traceback(error) if self._kinds[kind] <= TRACEBACKS else ""


def of_record(
    block: Block,
    at: int,
    record: Any,
    phase: Phase,
    error: BaseException,
    attempts: int = 1,
    hint: Callable[[BaseException, Any], str] = hints.of_record,
    traceback: Callable[[BaseException], str] | None = None,
) -> Failure:
    """Return the failure of one record of a block, with a hint at its cause."""
    number = block.numbers[at]
    start, stop = block.locate(number)
    kind = type(error).__name__
    message = explain(error) + hint(error, record)
    told = (traceback or user_traceback)(error)
    fields = (
        block.span.input.uri,
        start,
        stop,
        number,
        show(record),
        phase,
        kind,
        message,
        told,
        attempts,
        "",
        None,
        0,
    )
    return tuple.__new__(Failure, fields)  # saves a tenth of the cost of a failing record


def placed(outcome: Failed, block: Block, at: int) -> Failed:
    """Return an outcome with the location of the one record that it concerns."""
    number = block.numbers[at]
    start, stop = block.locate(number)
    failure = outcome.failure._replace(
        source=block.span.input.uri, start=start, stop=stop, record=number, payload=show(block.record(at))
    )
    return outcome._replace(failure=failure)


def user_traceback(error: BaseException) -> str:
    """Return a traceback of the user's frames only, at most `TRACEBACK_LIMIT` characters long."""
    plain = _plain_traceback(error)
    text = _any_traceback(error) if plain is None else plain
    return text if len(text) <= TRACEBACK_LIMIT else f"{text[:_HEAD]}…\n{text[_HEAD + 2 - TRACEBACK_LIMIT :]}"


def _any_traceback(error: BaseException) -> str:
    """Return the traceback of any exception, including notes, syntax errors and exception groups."""
    import traceback  # only needed after a failure

    summary = traceback.TracebackException.from_exception(error, limit=-_FRAMES)
    summary.stack = _user_frames(summary.stack)
    return "".join(summary.format()) if summary.stack else ""


def _plain_traceback(error: BaseException, depth: int = 0) -> str | None:
    """Build the same traceback as `_any_traceback` at a tenth of its cost; ``None`` if that is impossible.

    Thousands of records fail at the same line, so the text of the frames is cached.
    """
    if isinstance(error, _UNUSUAL) or depth == _CHAIN or getattr(error, "__notes__", None):
        return None
    frames = _frames(error.__traceback__)
    if not frames and depth == 0:
        return ""
    before, link = error.__cause__, _CAUSE
    if before is None and not error.__suppress_context__:
        before, link = error.__context__, _CONTEXT
    text = _plain_traceback(before, depth + 1) if before is not None else ""
    if text is None:
        return None
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ in _BARE else f"{kind.__module__}.{kind.__qualname__}"
    told = tell(str, error)
    return f"{text and text + link}{frames}{name}{told and ': ' + told}\n"


def _frames(trace: TracebackType | None) -> str:
    """Return the formatted frames of the user's code."""
    where: list[int] = []
    first = trace
    while trace is not None:
        where += id(trace.tb_frame.f_code), trace.tb_lasti  # hashing a code object is slow
        trace = trace.tb_next
    key = tuple(where)
    cached = _cached_frames.get(key)
    if cached is not None:
        return cached[0]
    import traceback  # as above

    stack = _user_frames(traceback.extract_tb(first, limit=-_FRAMES))
    text = f"Traceback (most recent call last):\n{''.join(stack.format())}" if stack else ""
    if len(_cached_frames) == _MOST_FRAMES:
        _cached_frames.clear()
    codes = []
    while first is not None:
        codes.append(first.tb_frame.f_code)  # kept alive, so that no other code object reuses its id
        first = first.tb_next
    _cached_frames[key] = text, codes
    return text


def _user_frames(stack: StackSummary) -> StackSummary:
    return type(stack).from_list([frame for frame in stack if not frame.filename.startswith(PACKAGE_DIR)])


def over(work: WorkItem, error: TaskTimeout | MemoryError, limits: Limits, retry: Retry = NEVER) -> Failed:
    """Return the outcome of work that exceeded a limit."""
    if isinstance(error, TaskTimeout):
        assert limits.seconds is not None
        slow = too_slow(work, limits.seconds).with_traceback(error.__traceback__)
        return lost(work, "timeout", slow, retry=retry)._replace(limit=limits.seconds)
    outcome = lost(work, "memory", _too_much(error, limits.memory), retry=retry)
    forget(error)
    give_back()
    return outcome


def forget(error: BaseException) -> None:
    """Release the objects that a function held when it raised: the traceback refers to them through its frames."""
    error.__traceback__ = error.__context__ = error.__cause__ = None


def _too_much(error: MemoryError, cap: int | None) -> MemoryError:
    """Return the error that reports a task over its memory limit."""
    told = f": {error}" if str(error) else ""
    over = f"the task took more than per_task memory={format_bytes(cap)}" if cap else "there is no more memory"
    return MemoryError(f"{over}{told}").with_traceback(error.__traceback__)
