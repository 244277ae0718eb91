"""Forecast of a run: costly mistakes, time and memory, estimated from a sample of its records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batchflow.core.chunks import InputFile
from batchflow.core.rate import parse_rate
from batchflow.core.resources import format_bytes, total_memory
from batchflow.core.text import counted, printable
from batchflow.io.sources.splitter import is_compressed, processing_weight
from batchflow.plan import Plan
from batchflow.reporting.failure_groups import ErrorKind
from batchflow.reporting.report import Report

_FULL = 0.8
"""Share of the available memory above which a forecast warns."""


@dataclass(frozen=True)
class Trial:
    """Measurements of a sample."""

    report: Report
    share: float
    """Share of the input that was processed."""
    spread: bool
    """Whether it was taken from all of the input rather than from its beginning."""
    rates: Mapping[bool, float]
    """Seconds of one worker for a unit of weight: of inputs that are compressed, whose weight is a guess, and of
    others. Nothing where nothing came to its end."""
    held: float = 0.0
    """Bytes of the rows that a unit of weight gives, where they stay in memory."""
    notes: tuple[str, ...] = ()
    start: float = 0.0
    """Seconds to start a worker and load what its first task needs."""

    @property
    def failed_whole(self) -> bool:
        """Whether all of its records failed."""
        return 0 < self.report.rows_in <= self.report.failed

    def rate(self, *, compressed: bool) -> float:
        """Return the seconds for a unit of weight; where none of a kind came to its end, those of the other."""
        return self.rates.get(compressed, self.rates.get(not compressed, 0.0))

    def alone(self, item: InputFile) -> float:
        """Return the seconds that one worker takes for an input that cannot be cut."""
        return self.rate(compressed=item.compression is not None) * processing_weight(item)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        report = self.report
        return {
            "records": report.rows_in,
            "rows_out": report.rows_out,
            "failed": report.failed,
            "share": self.share,
            "spread": self.spread,
            "seconds": report.task_seconds,
            "start": self.start,
            "peak_memory": report.peak_memory,
            "notes": self.notes,
            "commonest": [kind._asdict() for kind in report.commonest],
        }


@dataclass(frozen=True)
class Forecast:
    """Plan of a job, with the measurements of a sample."""

    plan: Plan
    slots: int
    """Number of workers that will run concurrently."""
    refused: tuple[str, ...] = ()
    """Reasons that the job cannot run as it is."""
    trial: Trial | None = None
    """Measurements of the sample; ``None`` if nothing was run."""

    @property
    def problems(self) -> tuple[str, ...]:
        """Problems that would be costly, the worst first."""
        return (*self.refused, *(() if self.trial is None else _told(self.trial, self.seconds)), *self._memory())

    @property
    def advice(self) -> tuple[str, ...]:
        """Advice for a faster run, based on the sample."""
        if self.trial is None or self.trial.failed_whole:
            return self.plan.doubts
        return self.trial.report.advice

    @property
    def left(self) -> Mapping[bool, float]:
        """Weight of the input that no earlier run did, by whether it is compressed; 0 where nobody knows it."""
        left = {True: 0.0, False: 0.0}
        if not self.plan.source.in_memory:
            left[True] = sum(processing_weight(item) for item in self.plan.inputs if item.compression)
        left[False] = (self.plan.total or 0) - left[True]
        for done in () if self.plan.history is None else self.plan.history.chunks.values():
            left[is_compressed(done.chunk)] -= done.chunk.weight
        return {compressed: max(0.0, weight) for compressed, weight in left.items()}

    @property
    def seconds(self) -> float | None:
        """What the rest of the job should take with its start, if side by side no worker is slower than alone."""
        trial = self.trial
        if trial is None or not trial.rates or self.plan.total is None or self.plan.finished:
            return None
        work = sum(trial.rate(compressed=compressed) * weight for compressed, weight in self.left.items())
        alone = (trial.alone(item) for item in self.plan.uncuttable)
        return trial.start + max([work / self.slots, self._by_rate(), *alone])

    def _by_rate(self) -> float:
        """Return the seconds that a rate of calls alone takes."""
        if self.plan.spec.rate is None or self.trial is None or not self.trial.share:
            return 0.0
        records = self.trial.report.rows_in * sum(self.left.values()) / (self.trial.share * (self.plan.total or 1))
        return records / parse_rate(self.plan.spec.rate).per_second

    @property
    def memory(self) -> int | None:
        """Bytes of all workers, and of the rows where they stay in the memory of the driver."""
        if self.trial is None or not self.trial.report.peak_memory:
            return None
        return round(self.trial.report.peak_memory * self.slots + self.trial.held * (self.plan.total or 0))

    def _memory(self) -> Iterator[str]:
        """Yield that there is not enough memory."""
        cap = min(self.plan.spec.limits.nbytes or total_memory(), total_memory())
        if self.memory is None or self.memory < _FULL * cap:
            return
        rows = self.trial.held * (self.plan.total or 0) if self.trial else 0
        cure = "write the result with into= (--into)" if rows > self.memory / 2 else "fewer workers take less"
        yield f"about {format_bytes(self.memory)} of memory are needed and {format_bytes(cap)} are there: {cure}"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        plan = self.plan
        target = plan.destination
        return {
            "problems": self.problems,
            "advice": self.advice,
            "kind": plan.source.kind,
            "inputs": len(plan.inputs),
            "size": plan.size,
            "uncuttable": [item.uri for item in plan.uncuttable[:_MANY]],
            "uncuttables": len(plan.uncuttable),
            "chunk_weight": plan.chunk_weight,
            "slots": self.slots,
            "finished": plan.finished,
            "output": None if target is None else {"path": str(target.path), "format": target.format},
            "sample": None if self.trial is None else self.trial.as_dict(),
            "seconds": self.seconds,
            "memory": self.memory,
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield from (f"problem   {printable(line)}" for line in self.problems)
        yield self.plan.explain()
        if self.trial is not None:
            yield from _shown(self.trial)
        if self.seconds is not None:
            workers = f"{self.slots} worker{'s' if self.slots > 1 else ''}"
            measured = "batchflow scale measures what more of them gain"
            yield f"time      about {_duration(self.seconds)} with {workers}; {measured}"
            yield from self._slowest(self.seconds)
        if self.memory is not None and self.trial is not None:
            peak = format_bytes(self.trial.report.peak_memory)
            yield f"memory    about {format_bytes(self.memory)}: {peak} for each of {self.slots}{self._held()}"
        yield from (f"advice    {line}" for line in self.advice)

    def _held(self) -> str:
        rows = 0 if self.trial is None else self.trial.held * (self.plan.total or 0)
        return f", and {format_bytes(rows)} of rows" if rows else ""

    def _slowest(self, seconds: float) -> Iterator[str]:
        """Yield that one file that cannot be cut takes longer than all workers need for the rest."""
        assert self.trial is not None
        big = max(self.plan.uncuttable, key=self.trial.alone, default=None)
        if big is None or self.plan.source.kind == "files" or self.slots == 1:
            return
        if self.trial.start + self.trial.alone(big) >= seconds:
            yield (
                f"          {printable(big.uri)} takes one worker all of that: in several files, or uncompressed, "
                "the others could help"
            )


_MANY = 1000


def _told(trial: Trial, seconds: float | None) -> Iterator[str]:
    """Yield what is wrong in a sample."""
    report = trial.report
    if trial.failed_whole:
        yield f"each of the {report.rows_in:,} records of the sample failed, {_kind(report.commonest[0])}"
        return
    for kind in report.commonest:
        if kind.phase == "convert":
            yield f"in the sample rows do not go together in one table, {_kind(kind)}"
    if seconds is None and not trial.rates:
        yield "nothing of the sample came to its end, so nobody can tell how long the job takes"


def _kind(kind: ErrorKind) -> str:
    return f"{kind.rows:,} x {kind.error_type} in {kind.phase}: {kind.example}"


def _shown(trial: Trial) -> Iterator[str]:
    report = trial.report
    where = "all over the input" if trial.spread else "the beginning of the input"
    failed = f", {report.failed:,} failed" if report.failed else ""
    sample = f"{counted(report.rows_in, 'record')} from {where}"
    yield f"sample    {sample}, {report.task_seconds:.2f} s of one worker{failed}"
    yield from map(str, report.commonest)
    yield from (f"          {note}" for note in trial.notes)


def _duration(seconds: float) -> str:
    """Return a time as a person reads it."""
    if seconds < 100:
        return f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60:,} h {minutes % 60} min"
