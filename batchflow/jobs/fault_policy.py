"""Fault policy: retry, split, run alone, or give up lost work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from batchflow.core.chunks import Key
from batchflow.core.outcomes import TRACEBACKS, Failed, Failure, Failures, Outcome, SpanCount, Stats, Succeeded
from batchflow.core.text import printable
from batchflow.core.work import CountRecords, Task, WorkItem
from batchflow.errors import ExecutorError

DEATHS = 3
"""Worker deaths before work that calls the function on no record is given up."""
BARREN = 100
"""Failed starts and lost tasks before the first success, after which the job is aborted."""
UNCOUNTED = 100
"""Maximum splits of a chunk whose records cannot be counted: enough for three bad lines in a gigabyte."""
RESPITE_SECONDS = 1.0
"""Seconds for other processes of the machine to release memory before a retry."""
LOSSES = 3
"""Node losses during a chunk before the chunk itself is suspected."""


class FaultPolicy:
    """Counter of the losses excused for each chunk of a job.

    Parameters
    ----------
    proven
        Tasks of the job have succeeded before.
    """

    def __init__(self, *, proven: bool) -> None:
        self._barren: int | None = None if proven else 0
        """Tasks lost, as long as none has succeeded."""
        self._deaths: dict[Key, int] = {}
        self._losses: Counter[Key] = Counter()
        """Lost nodes by chunk."""
        self._pressed: set[Key] = set()
        """Records that ran out of memory while nothing else ran."""
        self._uncounted: Counter[Key] = Counter()
        """Splits of each chunk whose records could not be counted."""

    def is_unlucky(self, work: WorkItem, outcome: Outcome) -> bool:
        """Whether work without a culprit record lost its worker, most likely for an external reason."""
        deaths = self._deaths.pop(work.key, 0) + 1
        if isinstance(work, Task) or not isinstance(outcome, Failed) or not outcome.died or deaths == DEATHS:
            return False
        if isinstance(work, CountRecords) and outcome.failure.phase != "worker":
            return False  # what takes too long, or too much memory, does so again
        self._deaths[work.key] = deaths
        return True

    def is_stranded(self, task: Task, outcome: Outcome) -> bool:
        """Whether a task was lost only because its node was lost."""
        if not isinstance(outcome, Failed) or not outcome.gone or self._losses[task.key] == LOSSES:
            return False
        self._losses[task.key] += 1
        return True

    def tries(self, task: Task) -> int:
        """Return the number of attempts of a chunk, without those lost with their node."""
        return task.attempt - self._losses[task.key]

    def respite(self, task: Task, outcome: Failed) -> float | None:
        """Return the seconds before a record is retried alone, ``None`` if it must be at fault.

        Where memory ran out it was that of the whole machine, on which other things than this job may run.
        """
        if not outcome.suspect:
            return None
        if not task.alone:
            return 0.0
        if outcome.failure.phase != "memory" or task.key in self._pressed:
            return None
        self._pressed.add(task.key)
        return RESPITE_SECONDS

    def is_uncountable(self, task: Task) -> bool:
        """Whether a chunk kills the process that counts its records, wherever it is split."""
        return self._uncounted[task.key[:2]] > UNCOUNTED

    def cut(self, task: Task) -> None:
        """Record a split of a chunk whose records could not be counted."""
        self._uncounted[task.key[:2]] += 1

    def hear(self, outcome: Outcome) -> None:
        """Record the outcome of a task.

        Raises
        ------
        ExecutorError
            Where tasks break off and break off, whatever they are given to do.
        """
        if isinstance(outcome, Succeeded):
            self._barren = None
        elif self._barren is not None and (outcome.died or outcome.failure.phase == "worker"):
            self._barren += 1
            if self._barren == BARREN:
                failure = outcome.failure
                message = (
                    f"the first {BARREN} tasks all broke off, the last one so: "
                    f"{failure.error_type}: {printable(failure.message)}; it is no record's fault, but that of "
                    "the function, of its setup=, of what they import, or of limits that are too tight"
                )
                raise ExecutorError(message)


class Tracebacks:
    """Counter of failures by kind, which drops tracebacks beyond the first `TRACEBACKS` of each.

    A kind is a type of error raised at one line. Ten million failures would be gigabytes of one text.
    """

    def __init__(self) -> None:
        self._kinds: Counter[tuple[str, str]] = Counter()

    def add(self, failures: Sequence[Failure], task: Task, stats: Stats) -> Sequence[Failure]:
        """Return failures with total attempts and the worker of the last one."""
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


def failures_per_span(task: Task, failure: Failure) -> Iterator[Failure]:
    """Yield a row for each span of a chunk that failed as a whole."""
    if failure.record is not None:
        yield failure
        return
    for span in task.chunk.spans:
        yield failure._replace(source=span.input.uri, start=span.start, stop=span.stop)


def as_single_record(task: Task, outcome: Failed) -> Failed:
    """Return the outcome of a chunk with a single record that could not be read."""
    (span,) = task.chunk.spans
    failure = outcome.failure._replace(source=span.input.uri, start=span.start, stop=span.stop, record=0)
    return outcome._replace(failure=failure, records=1)


def stats_of_failed_chunk(task: Task, outcome: Failed) -> Stats:
    """Return the statistics of a chunk whose records all failed."""
    if outcome.stats.spans:
        spans = tuple(count._replace(rows_out=0, failed=count.rows_in) for count in outcome.stats.spans)
    else:
        known = outcome.records or 0
        spans = (SpanCount(outcome.failure.source or task.chunk.spans[0].input.uri, known, known, 0, known),)
    return outcome.stats._replace(spans=spans)
