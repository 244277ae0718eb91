"""What a job did, added up from its events."""

from __future__ import annotations

import heapq
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from batchflow.events import ChunkSettled, Event, JobEnded, JobStarted, SlotsChanged, TaskEnded
from batchflow.model import Stats

_SLOWEST = 5


class SourceCount(NamedTuple):
    """What became of the records of one input."""

    rows_in: int = 0
    rows_out: int = 0
    failed: int = 0


class SlowChunk(NamedTuple):
    """One of the chunks that took longest."""

    source: str
    start: int
    stop: int | None
    seconds: float


@dataclass(frozen=True)
class Report:
    """What a job did; times in seconds, sizes in bytes."""

    executor: str = ""
    slots: int = 0
    """Tasks that ran side by side; of a cluster that grew or shrank, the most."""
    logs: str = ""
    """File or folder with messages of the engine, if they do not go to the terminal."""
    complete: bool = False
    """Whether the job ran to its end."""
    rows_in: int = 0
    before: int = 0
    """Of the records in, those that earlier runs did."""
    rows_out: int = 0
    failed: int = 0
    """Rows of the error table."""
    succeeded: int = 0
    """Of the records in, those that did not fail."""
    lost: int = 0
    """Records that failed: all of a chunk that failed as a whole, or each row of one that nobody could count."""
    chunks: int = 0
    retries: int = 0
    """Tasks beyond the first one of each chunk, and calls with records that were tried before."""
    bytes_read: int = 0
    seconds: float = 0.0
    """From the start of the job to its end."""
    task_seconds: float = 0.0
    """Summed over all tasks."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds in read, call, convert and write, summed over all tasks."""
    busy: Mapping[str, float] = field(default_factory=dict)
    """Share of the job's time in which each worker had a task, by worker."""
    peak_memory: int = 0
    """Largest resident size of a worker."""
    sources: Mapping[str, SourceCount] = field(default_factory=dict)
    """Rows by input; inputs without a failure are left out where there are more than a thousand."""
    slowest: tuple[SlowChunk, ...] = ()

    @property
    def speedup(self) -> float:
        """How many workers' worth of task time was done in each second."""
        return self.task_seconds / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        sources = {uri: count._asdict() for uri, count in self.sources.items()}
        slowest = [chunk._asdict() for chunk in self.slowest]
        return vars(self) | {"sources": sources, "slowest": slowest, "speedup": self.speedup}

    def _repr_html_(self) -> str:
        """Show the report in a notebook."""
        from batchflow.notebook import facts, page  # only for those who look

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
                    "workers": f"{self.speedup:.1f} workers' worth on {self.slots} ({self.executor or 'none'})",
                    "chunks": f"{self.chunks:,}",
                    "peak memory": f"{self.peak_memory / 1e6:,.0f} MB per worker",
                },
            )
        )

    def __str__(self) -> str:
        counts = (
            f"{self.rows_in:,} records in, {self.rows_out:,} rows out, {self.failed:,} failed, "
            f"{self.retries:,} retries\n"
        )
        if self.complete and not self.executor:
            return f"{counts}nothing to do: all of it was done before"
        rate = (self.rows_in - self.before) / self.seconds if self.seconds else 0
        resumed = f"{self.before:,} of them were done before\n" if self.before else ""
        logs = f"\nmessages of {self.executor}: {self.logs}" if self.logs else ""
        return (
            f"{counts}{resumed}"
            f"{self.seconds:.2f} s, {rate:,.0f} records/s, {self.speedup:.1f} workers' worth on {self.slots} "
            f"({self.executor}), {self.chunks:,} chunks, peak {self.peak_memory / 1e6:,.0f} MB per worker{logs}"
        )


class ReportBuilder:
    """A listener that adds a report up."""

    SOURCES = 1000

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._start = JobStarted("", None, "", 0)
        self._complete = False
        self._slots = 0
        self._totals = dict.fromkeys(
            ("rows_in", "before", "rows_out", "failed", "succeeded", "lost", "chunks", "retries", "bytes_read"), 0
        )
        self._phases = dict.fromkeys(("read", "call", "convert", "write"), 0.0)
        self._busy: dict[str, float] = {}
        self._peak = 0
        self._sources: dict[str, SourceCount] = {}
        self._slowest: list[tuple[float, int, SlowChunk]] = []

    def __call__(self, event: Event) -> None:
        """Hear one event."""
        if isinstance(event, TaskEnded):
            self._task(event.stats, event)
        elif isinstance(event, ChunkSettled):
            self._chunk(event)
        elif isinstance(event, JobStarted):
            self._start, self._slots = event, event.slots
        elif isinstance(event, SlotsChanged):
            self._slots = max(self._slots, event.slots)
        elif isinstance(event, JobEnded):
            self._complete = event.complete

    def _task(self, stats: Stats, event: TaskEnded) -> None:
        self._totals["retries"] += (event.attempt > 1) + stats.retries
        self._totals["bytes_read"] += stats.nbytes
        self._busy[stats.worker] = self._busy.get(stats.worker, 0.0) + stats.seconds
        self._peak = max(self._peak, stats.peak_memory)
        for phase in self._phases:
            self._phases[phase] += getattr(stats, phase)

    def _chunk(self, event: ChunkSettled) -> None:
        stats = event.stats
        self._totals["chunks"] += 1
        self._totals["rows_in"] += stats.rows_in
        self._totals["before"] += stats.rows_in if event.before else 0
        self._totals["rows_out"] += stats.rows_out
        self._totals["failed"] += len(event.failures)
        self._totals["succeeded"] += stats.rows_in - stats.failed
        self._totals["lost"] += stats.failed or len(event.failures)
        span = event.chunk.spans[0]
        slow = SlowChunk(span.input.uri, span.start, span.stop, stats.seconds)
        heapq.heappush(self._slowest, (stats.seconds, self._totals["chunks"], slow))
        if len(self._slowest) > _SLOWEST:
            heapq.heappop(self._slowest)
        for count in stats.spans:
            before = self._sources.get(count.uri)
            if before is None and len(self._sources) >= self.SOURCES and not count.failed:
                continue  # the driver's memory must not grow with the number of files
            before = before or SourceCount()
            self._sources[count.uri] = SourceCount(
                before.rows_in + count.rows_in, before.rows_out + count.rows_out, before.failed + count.failed
            )

    def totals(self) -> dict[str, Any]:
        """Return records, rows and failures, of which the chunks tell and not the tasks."""
        counted = ("rows_in", "before", "rows_out", "failed", "chunks")
        return {name: self._totals[name] for name in counted} | {"sources": dict(self._sources)}

    def report(self) -> Report:
        """Return the report as of now."""
        seconds = time.perf_counter() - self._began
        return Report(
            executor=self._start.executor,
            slots=self._slots,
            logs=self._start.logs,
            complete=self._complete,
            seconds=seconds,
            task_seconds=sum(self._busy.values()),
            phases=dict(self._phases),
            busy={worker: spent / seconds for worker, spent in self._busy.items() if worker},
            peak_memory=self._peak,
            sources=dict(self._sources),
            slowest=tuple(slow for _, _, slow in sorted(self._slowest, reverse=True)),
            **self._totals,
        )
