"""What is told of records that failed, beside what their worker knew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from batchflow.model import TRACEBACKS, Failed, Failure, Failures, SpanCount, Stats, Task


class Tracebacks:
    """Counts failures of each kind, and drops the tracebacks of those beyond the first `TRACEBACKS`.

    A kind is a type of error raised at one line. Ten million failures would be gigabytes of one text.
    """

    def __init__(self) -> None:
        self._kinds: Counter[tuple[str, str]] = Counter()

    def add(self, failures: Sequence[Failure], task: Task, stats: Stats) -> Sequence[Failure]:
        """Return failures with what the scheduler knows: attempts in all, and the worker of the last one."""
        if not failures:
            return ()
        columns = Failures.of(failures)
        before, worker = task.attempt - 1, stats.worker
        tracebacks = columns.column("traceback")
        if any(tracebacks):
            tracebacks = list(map(self._kept, columns.column("error_type"), tracebacks))
        return columns.replace(
            traceback=tracebacks,
            attempts=[before + attempts for attempts in columns.column("attempts")],
            worker=[name or worker for name in columns.column("worker")],
        )

    def _kept(self, error_type: str, text: str) -> str:
        if not text:
            return ""
        line = text.rfind('\n  File "')
        kind = (error_type, text[line : text.find("\n", line + 1)])
        self._kinds[kind] += 1
        return text if self._kinds[kind] <= TRACEBACKS else ""


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
