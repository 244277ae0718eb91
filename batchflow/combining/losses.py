"""What is told of records that failed, beside what their worker knew."""

from __future__ import annotations

from collections.abc import Iterator

from batchflow.model import Failed, Failure, SpanCount, Stats, Task


def seen(failure: Failure, task: Task, stats: Stats) -> Failure:
    """Return a failure with what only the scheduler knows: how often it was tried, and where last."""
    return failure._replace(attempts=task.attempt - 1 + failure.attempts, worker=failure.worker or stats.worker)


def rows(task: Task, failure: Failure) -> Iterator[Failure]:
    """Yield a row for each span of a chunk that failed as a whole."""
    if failure.record is not None:
        yield failure
        return
    for span in task.chunk.spans:
        yield failure._replace(source=span.input.uri, start=span.start, stop=span.stop)


def single(task: Task, outcome: Failed) -> Failed:
    """Return the outcome of a chunk that holds but one record, which could not be read."""
    (span,) = task.chunk.spans
    failure = outcome.failure._replace(source=span.input.uri, start=span.start, stop=span.stop, record=0)
    return outcome._replace(failure=failure, records=1)


def lost_stats(task: Task, outcome: Failed) -> Stats:
    """Return the statistics of a chunk whose records all failed."""
    if outcome.stats.spans:
        spans = tuple(count._replace(rows_out=0, failed=count.rows_in) for count in outcome.stats.spans)
    else:
        known = outcome.records or 0
        spans = (SpanCount(outcome.failure.source or task.chunk.spans[0].input.uri, known, known, 0, known),)
    return outcome.stats._replace(spans=spans)
