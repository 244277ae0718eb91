"""Report of a job, aggregated from its events."""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from batchflow.core.chunk_sizing import ALONE_LEAST
from batchflow.core.chunks import Chunk
from batchflow.core.outcomes import SpanCount, Stats
from batchflow.events import (
    ChunkSettled,
    CombineEnded,
    Event,
    JobEnded,
    JobStarted,
    SlotsChanged,
    TaskEnded,
    TaskStarted,
)
from batchflow.reporting.failure_groups import ErrorKind, FailureGroups
from batchflow.reporting.utilization import PHASES, SlotUtilization

_SLOWEST = 5
_COMMONEST = 3


class SourceCount(NamedTuple):
    """Record counts of one input."""

    rows_in: int = 0
    rows_out: int = 0
    failed: int = 0


class SlowChunk(NamedTuple):
    """One of the slowest chunks."""

    source: str
    start: int
    stop: int | None
    seconds: float
    uncut: bool = False
    """Whether it is a compressed file, which cannot be split."""


class ReportContext(NamedTuple):
    """Options of a job that its report mentions."""

    kind: str = ""
    """Kind of the source."""
    per: str = "record"
    chunk: int | str | None = None
    calls: int | None = None
    """Concurrent calls per worker."""
    rate: bool = False
    cpus: float = 1
    """Cores per task."""
    memory: int | None = None
    """Memory per task in bytes."""
    output: str = ""
    """Output folder or file."""
    meta: str = ""
    """Metadata folder of the output."""
    version: str = ""
    """Version of the function, if given."""
    function: str = ""
    """Name of the function."""
    doubts: tuple[str, ...] = ()
    """Doubts about how the input is read."""
    reads: Mapping[str, str] = {}
    """Named and inferred properties of the input."""


@dataclass(frozen=True)
class Report:
    """Report of a job; times in seconds, sizes in bytes."""

    executor: str = ""
    slots: int = 0
    """Number of concurrent tasks; the maximum on a cluster that grew or shrank."""
    logs: str = ""
    """Log file or folder of the engine, if its messages do not go to the terminal."""
    complete: bool = False
    """Whether the job ran to its end."""
    rows_in: int = 0
    before: int = 0
    """Number of records that earlier runs processed."""
    rows_out: int = 0
    failed: int = 0
    """Records that failed: all of a chunk that failed as a whole, or each row of one that nobody could count."""
    succeeded: int = 0
    """Number of records that did not fail."""
    chunks: int = 0
    retries: int = 0
    """Tasks after the first one of each chunk, and calls with records tried before."""
    isolation_tasks: int = 0
    """Retried tasks that isolate records of a lost or failed task."""
    isolation_seconds: float = 0.0
    """Summed duration of the isolation tasks."""
    bytes_read: int = 0
    seconds: float = 0.0
    """Duration of the job."""
    over_one: float | None = None
    """How many times as fast as one worker alone, as far as a chunk tells beside which nothing ran; ``None`` where
    there was no time for one: that takes at most a hundredth of the job."""
    task_seconds: float = 0.0
    """Summed duration of all tasks, including combine tasks."""
    cpu_seconds: float = 0.0
    """CPU time of all tasks, summed over threads; the rest is waiting."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds in read, call, convert and write, summed over all tasks."""
    time: Mapping[str, float] = field(default_factory=dict)
    """Seconds of all workers by what they went into: start, read, call, convert, write, other, wait. They add
    up to the slots times the seconds of the job; `batchflow.reporting.utilization` says what each of them is."""
    driver: Mapping[str, float] = field(default_factory=dict)
    """Driver time spent on splitting the input, and on combining results."""
    busy: Mapping[str, float] = field(default_factory=dict)
    """Share of the job's time in which each worker had a task, by worker."""
    peak_memory: int = 0
    """Largest resident size of a worker."""
    sources: Mapping[str, SourceCount] = field(default_factory=dict)
    """Rows by input; inputs without a failure are left out where there are more than a thousand."""
    slowest: tuple[SlowChunk, ...] = ()
    commonest: tuple[ErrorKind, ...] = ()
    """The commonest kinds of failure, with a count and an example each."""
    kinds: int = 0
    """Number of kinds of failure."""
    advice: tuple[str, ...] = ()
    """Advice based on measurements."""
    output: str = ""
    """Output folder or file."""
    meta: str = ""
    """Metadata folder, with the error table and this report."""
    version: str = ""
    """Version of the function, if given."""
    function: str = ""
    """Name of the function."""
    reads: Mapping[str, str] = field(default_factory=dict)
    """How the input is read: dialect and encoding, and the types of columns with what they were inferred from."""

    @property
    def speedup(self) -> float:
        """How many workers' worth of task time was done in each second.

        It is at most this many times as fast as one worker: tasks side by side may each take longer than one
        alone would, for want of memory bandwidth or disk. `over_one` tells, and `Job.scale` measures it.
        """
        return self.task_seconds / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        sources = {uri: count._asdict() for uri, count in self.sources.items()}
        slowest = [chunk._asdict() for chunk in self.slowest]
        commonest = [kind._asdict() for kind in self.commonest]
        told = {"sources": sources, "slowest": slowest, "commonest": commonest, "speedup": self.speedup}
        return vars(self) | told

    def _repr_html_(self) -> str:
        """Show the report in a notebook."""
        from batchflow.reporting.notebook import facts, page  # only for those who look
        from batchflow.reporting.summary import worth

        rate = (self.rows_in - self.before) / self.seconds if self.seconds else 0
        return page(
            facts(
                "Report" if self.complete else "Report of a run that did not come to its end",
                {
                    "records in": f"{self.rows_in:,}",
                    "rows out": f"{self.rows_out:,}",
                    "failed": f"{self.failed:,}",
                    "retries": f"{self.retries:,}",
                    "time": f"{self.seconds:.2f} s, {rate:,.0f} records/s",
                    "workers": worth(self),
                    "chunks": f"{self.chunks:,}",
                    "peak memory": f"{self.peak_memory / 1e6:,.0f} MB per worker",
                },
            )
        )

    def __str__(self) -> str:
        from batchflow.reporting.summary import summary  # only where somebody reads it

        return summary(self)


class ReportBuilder:
    """Listener that aggregates a report.

    Parameters
    ----------
    terms
        What was asked of the job.
    """

    SOURCES = 1000

    def __init__(self, terms: ReportContext = ReportContext()) -> None:  # noqa: B008 - it is frozen
        self._terms = terms
        self._start = JobStarted("", None, "", 0)
        self._end = JobEnded(complete=False)
        self._slots = 0
        self._totals = dict.fromkeys(
            ("rows_in", "before", "rows_out", "failed", "succeeded", "chunks", "retries", "bytes_read"), 0
        )
        self._time = SlotUtilization()
        self._peak = 0
        self._weight = 0
        self.records: int = 0
        """Number of records reported by tasks of this run."""
        self._isolation_tasks = 0
        self._isolation_seconds = 0.0
        self._alone = 0.0
        """Seconds of one worker that nothing runs beside, for what is one of weight."""
        self._sources: dict[str, SourceCount] = {}
        self._slowest: list[tuple[float, int, SlowChunk]] = []
        self.errors: FailureGroups = FailureGroups()

    def __call__(self, event: Event) -> None:
        """Handle one event."""
        if isinstance(event, TaskStarted):  # the commonest ones first, since there are three for each chunk
            self._isolation_tasks += bool(event.isolating)
            return
        if isinstance(event, TaskEnded):
            self._task(event.stats, event)
        elif isinstance(event, ChunkSettled):
            self._chunk(event)
        elif isinstance(event, CombineEnded):
            self._time.combined(event.stats, part=event.part)
        elif isinstance(event, JobStarted | SlotsChanged):
            self._time.resize(event.slots)
            self._slots = max(self._slots, event.slots)
            self._start = event if isinstance(event, JobStarted) else self._start
        elif isinstance(event, JobEnded):
            self._end = event

    def _task(self, stats: Stats, event: TaskEnded) -> None:
        self._totals["retries"] += (event.attempt > 1) + stats.retries
        self._totals["bytes_read"] += stats.nbytes
        self._time.task(stats)
        if event.isolating:
            self._isolation_seconds += stats.seconds
        self._peak = max(self._peak, stats.peak_memory)
        if not event.again:
            self._weight += event.weight
            self.records += stats.counts[0]
        if event.alone and event.ok and event.attempt == 1 and stats.seconds >= ALONE_LEAST and event.weight:
            self._alone = stats.seconds / event.weight

    def _chunk(self, event: ChunkSettled) -> None:
        stats, totals = event.stats, self._totals
        rows_in, rows_out, failed = stats.counts
        totals["chunks"] += 1
        totals["rows_in"] += rows_in
        totals["rows_out"] += rows_out
        totals["succeeded"] += rows_in - failed
        totals["failed"] += failed or len(event.failures)
        if event.before:
            totals["before"] += rows_in
        if event.failures:
            self.errors.add_failures(event.failures)
        if len(self._slowest) < _SLOWEST:
            heapq.heappush(self._slowest, (stats.seconds, totals["chunks"], _slow(event.chunk, stats)))
        elif stats.seconds > self._slowest[0][0]:
            heapq.heapreplace(self._slowest, (stats.seconds, totals["chunks"], _slow(event.chunk, stats)))
        for span in stats.spans:
            self._count(span)

    def _count(self, span: SpanCount) -> None:
        """Add the record counts of an input."""
        uri, _, rows_in, rows_out, failed = span
        known = self._sources.get(uri)
        if known is not None:
            rows_in += known.rows_in
            rows_out += known.rows_out
            failed += known.failed
        elif len(self._sources) >= self.SOURCES and not failed:
            return  # the driver's memory must not grow with the number of files
        self._sources[uri] = SourceCount(rows_in, rows_out, failed)

    def totals(self) -> dict[str, Any]:
        """Return the totals of records, rows and failures, which only chunks report."""
        counted = ("rows_in", "before", "rows_out", "failed", "chunks")
        kinds = self.errors.kinds()
        told = {"sources": dict(self._sources), "commonest": tuple(kinds[:_COMMONEST]), "kinds": len(kinds)}
        return {name: self._totals[name] for name in counted} | told

    def report(self) -> Report:
        """Return the current report."""
        from batchflow.reporting.advice import advise  # as above

        spent, seconds = self._time.losses(), self._time.seconds
        report = Report(
            executor=self._start.executor,
            isolation_tasks=self._isolation_tasks,
            isolation_seconds=self._isolation_seconds,
            slots=self._slots,
            logs=self._start.logs,
            complete=self._end.complete,
            seconds=seconds,
            over_one=self._alone * self._weight / seconds if self._alone else None,
            task_seconds=sum(self._time.busy.values()),
            cpu_seconds=self._time.cpu,
            phases={phase: spent[phase] for phase in PHASES},
            time=spent,
            driver={"splitting": self._end.splitting, "combining": self._end.combining},
            busy={worker: spent / seconds for worker, spent in self._time.busy.items() if worker},
            peak_memory=self._peak,
            slowest=tuple(slow for _, _, slow in sorted(self._slowest, reverse=True)),
            output=self._terms.output,
            meta=self._terms.meta,
            version=self._terms.version,
            function=self._terms.function,
            reads=self._terms.reads,
            **(self._totals | self.totals()),
        )
        return replace(report, advice=advise(report, self._terms))


def _slow(chunk: Chunk, stats: Stats) -> SlowChunk:
    span = chunk.spans[0]
    uncut = len(chunk.spans) == 1 and span.whole and span.input.compression is not None
    return SlowChunk(span.input.uri, span.start, span.stop, stats.seconds, uncut)
