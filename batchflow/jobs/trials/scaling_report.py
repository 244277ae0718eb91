"""What `Job.scale` found: speed by number of workers, beside what would be ideal, and what to make of it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from batchflow.jobs.trials.plot import Curve, bars, svg
from batchflow.jobs.trials.speedup import Bottleneck, SpeedupLaw
from batchflow.reporting.report import Report

ENOUGH = 0.95
"""Of the best speed-up: fewer workers that come so near are the better choice."""
PAYS = 1.1
"""Times as fast, that twice the workers must be at least to pay."""
WAITS = 0.5
"""Of their time that tasks compute, below which cores are not what they need."""
WELL = 0.8
"""Of the ideal, at which all cores are used well."""


class ScalingPoint(NamedTuple):
    """The same work, done by some workers."""

    workers: int
    seconds: float
    """The median of all rounds;"""
    fastest: float
    slowest: float
    speedup: float
    """Over one worker."""
    beyond: bool
    """There are fewer cores than workers."""
    report: Report
    """Of the round that is the median."""

    @property
    def efficiency(self) -> float:
        """Share of the ideal speed-up."""
        return self.speedup / self.workers

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        own = {name: getattr(self, name) for name in self._fields if name != "report"}
        return own | {"efficiency": self.efficiency, "time": dict(self.report.time)}


@dataclass(frozen=True)
class Scaling:
    """How a job's speed grows with its workers, measured."""

    points: tuple[ScalingPoint, ...]
    """By number of workers; the first is one worker."""
    cores: int
    share: float
    """Of the input that was used."""
    rounds: int
    start_seconds: float
    """Until a new worker begins its first task; it is not in the measured seconds."""
    amdahl: SpeedupLaw | None
    """The laws of speed-up as they fit best: `batchflow.jobs.trials.speedup`."""
    usl: SpeedupLaw | None
    bottleneck: Bottleneck
    chunk: int | str | None = None
    """What the job says of the size of chunks."""
    executor: str = "processes"
    notes: tuple[str, ...] = ()
    """What is to be known of how it was measured."""

    @property
    def law(self) -> SpeedupLaw | None:
        """The better law there is."""
        return self.usl or self.amdahl

    @property
    def waits(self) -> bool:
        """Whether tasks wait most of their time, so that cores are not what they need."""
        return self.points[0].report.cpu_seconds < WAITS * self.points[0].report.task_seconds

    @property
    def brief(self) -> bool:
        """Whether the driver itself would be done before workers have started."""
        return self.executor == "processes" and self.points[0].seconds / self.share < self.start_seconds

    @property
    def best(self) -> ScalingPoint:
        """The fewest workers that are about as fast as any number."""
        if self.brief:
            return self.points[0]
        most = max(point.speedup for point in self.points)
        return next(point for point in self.points if point.speedup >= ENOUGH * most)

    def seconds(self, point: ScalingPoint) -> float:
        """Return what the whole job should take with some workers, their start included."""
        return point.seconds / self.share + self.start_seconds

    @property
    def pays(self) -> bool:
        """Whether twice as many workers as are best would be notably faster, as far as the law tells."""
        count = self.best.workers
        return self.law is None or self.law.speedup(2 * count) > PAYS * self.law.speedup(count)

    @property
    def advice(self) -> str:
        """One line: workers, size of chunks, executor, and whether more workers would pay."""
        more = "it is over before workers have started" if self.brief else self._more()
        return f"{self._workers()}, {self._chunk()}, {self._executor()}; {more}"

    def _workers(self) -> str:
        count = self.best.workers
        return f"{count} worker{'s' if count > 1 else ''}"

    def _chunk(self) -> str:
        told = next((line for line in self.points[-1].report.advice if "chunk=" in line), None)
        if told is not None:
            return told.partition(": ")[2].replace(", or leave it out", "")
        return "chunk= left out" if self.chunk is None else f"chunk={self.chunk}"

    def _executor(self) -> str:
        return 'executor="serial"' if self.brief else f'executor="{self.executor}"'

    def _more(self) -> str:
        law, best = self.law, self.best
        if law is None:
            return "measure more numbers of workers to know whether more would pay"
        if not self.pays:
            most = "" if math.isinf(law.limit) else f", never more than {law.limit:.1f} times as fast as one"
            return f"more workers will not pay{most}"
        if best.efficiency >= WELL and self.waits:
            return "more workers would pay, and concurrency= more cheaply: calls wait"
        if best.workers >= self.cores and best.efficiency >= WELL:
            return "more cores would pay: more machines with Ray, or a larger one"
        if best is self.points[-1]:
            return "more workers may pay: measure them"
        return "more of the measured workers gain less than 5%"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        laws = {name: law and law._asdict() for name, law in (("amdahl", self.amdahl), ("usl", self.usl))}
        names = ("cores", "share", "rounds", "start_seconds", "notes", "advice")
        own = {name: getattr(self, name) for name in names}
        points = [point.as_dict() | {"job_seconds": self.seconds(point)} for point in self.points]
        return own | laws | {"points": points, "bottleneck": self.bottleneck._asdict(), "best": self.best.workers}

    def draw(self, path: str | os.PathLike[str]) -> None:
        """Write the curve as SVG: measured, ideal, and the law that fits best."""
        Path(path).write_text(svg(self._curves(), self._title(), self.cores), encoding="utf-8")

    def _curves(self) -> list[Curve]:
        counts = [point.workers for point in self.points]
        curves = [
            Curve("ideal", [(1, 1), (counts[-1], counts[-1])], kind="ideal"),
            Curve("measured", [(point.workers, point.speedup) for point in self.points], kind="measured"),
        ]
        if self.law is not None:
            steps = [1 + (counts[-1] - 1) * at / 60 for at in range(61)]
            name = "Universal Scalability Law" if self.usl else "Amdahl's law"
            curves.insert(1, Curve(name, [(at, self.law.speedup(at)) for at in steps], kind="law"))
        return curves

    def _title(self) -> str:
        return f"speed-up by workers ({self.executor}, {self.cores} cores)"

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield "workers  seconds  speed-up  efficiency  speed-up, | is ideal"
        drawn = bars([(point.speedup, point.workers) for point in self.points])
        for point, bar in zip(self.points, drawn, strict=True):
            beyond = f"  beyond the {self.cores} cores" if point.beyond else ""
            yield (
                f"{point.workers:>7}  {point.seconds:>7.2f}  {point.speedup:>8.2f}  {point.efficiency:>10.0%}  "
                f"{bar}{beyond}"
            )
        rounds = f"medians of {self.rounds} rounds" if self.rounds > 1 else "1 round"
        share = "all" if self.share == 1 else f"{self.share:.3g}"
        yield f"{rounds} over {share} of the input, workers started before"
        yield from self._laws()
        yield from self.notes
        lost = f", {self.bottleneck.share:.0%} of the workers' time" if self.bottleneck.name else ""
        yield f"bottleneck: {self.bottleneck.name or 'none'}{lost}: {self.bottleneck.why}"
        yield f"the whole job: about {self.seconds(self.best):,.1f} s with {self._workers()}"
        yield f"advice: {self.advice}"

    def _laws(self) -> Iterator[str]:
        if self.amdahl is not None:
            most = self.amdahl.limit
            limit = "no limit" if math.isinf(most) else f"at most {most:.1f} times as fast"
            yield f"Amdahl: {self.amdahl.contention:.1%} cannot be divided, {limit}"
        if self.usl is not None:
            peak = "no peak" if math.isinf(self.usl.peak) else f"fastest with {self.usl.peak:.0f} workers"
            yield f"USL: contention {self.usl.contention:.1%}, coherency {self.usl.coherency:.2%}, {peak}"
