"""Speedup laws (Amdahl, USL) and the bottleneck that limits more workers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from batchflow.core.text import printable
from batchflow.reporting.report import Report

NOTABLE = 0.1
"""Of the workers' time, below which what is lost has no name: rounds differ by as much."""
DRIVER_SHARE = 0.3
"""Of the job's time that the driver is busy before workers are thought to wait for it."""
UNCUT_SHARE = 0.5
"""Of the job's time that one file takes, before the others wait for its end."""


class Bottleneck(NamedTuple):
    """What most of the workers' time is lost to."""

    name: str
    """``"start-up"``, ``"splitting"``, ``"input"``, ``"function"``, ``"combining"``, ``"memory bandwidth"``, or
    nothing where it scales."""
    share: float
    """Of the workers' time that is lost to it."""
    why: str


SCALES = Bottleneck("", 0.0, "the workers' time goes into the work")


def find(one: Report, many: Report, cold: float, share: float, splitting: float = 0.0) -> Bottleneck:
    """Return what most is lost to by many workers against one.

    Parameters
    ----------
    one, many
        The same work, done by one worker and by many that were started before.
    cold
        Seconds until a worker that is not started yet begins its first task.
    share
        Of the job, that this work is.
    splitting
        Seconds that the driver took beforehand to cut all of the input.
    """
    all_there_is = many.slots * (many.seconds / share + cold)
    lost: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for seconds, name, why in _running(one, many, splitting * share):
        if seconds > 0:
            lost[name] = lost.get(name, 0.0) + seconds / share
            reasons.setdefault(name, why)
    lost["start-up"] = lost.get("start-up", 0.0) + many.slots * cold
    reasons["start-up"] = f"workers take {cold:.2f} s until they begin, which is much of so short a job"
    worst = max(lost, key=lambda name: lost[name])
    if lost[worst] < NOTABLE * all_there_is:
        return SCALES
    return Bottleneck(worst, lost[worst] / all_there_is, reasons[worst])


def _running(one: Report, many: Report, splitting: float) -> Iterator[tuple[float, str, str]]:
    """Yield what more was spent by many than by one, by what it was spent on."""
    more = {name: max(0.0, many.time[name] - one.time[name]) for name in many.time}
    yield _waiting(many, more["wait"], splitting)
    work = more["call"] + more["convert"]
    computed = min(work, max(0.0, many.cpu_seconds - one.cpu_seconds))
    yield (
        work - computed,
        "function",
        "calls take longer side by side and compute no more: they wait for each other (a lock, a service, a disk) "
        "or for cores that something else uses",
    )
    yield (
        computed,
        "memory bandwidth",
        "calls compute longer side by side than alone: they share the bandwidth of memory, caches or cores",
    )
    yield more["read"], "input", "reading takes longer side by side: disk or network give no more"
    yield more["write"], "combining", "writing takes longer side by side: disk or network take no more"
    yield more["other"], "splitting", "each chunk costs time beside its work: larger ones cost less"
    yield more["start"], "start-up", "each run makes its workers ready first: setup=, imports, the function itself"


def _waiting(many: Report, waited: float, splitting: float) -> tuple[float, str, str]:
    """Return what workers waited for between their tasks, and behind the last one."""
    slow = many.slowest[0] if many.slowest else None
    if slow is not None and slow.uncut and slow.seconds > UNCUT_SHARE * many.seconds:
        why = f"{printable(slow.source)} cannot be cut, as it is compressed: one worker does it alone"
        return waited, "input", why
    split, combine = many.driver["splitting"] + splitting, many.driver["combining"]
    if max(split, combine) < DRIVER_SHARE * many.seconds:
        return waited, "splitting", "workers wait for the last chunks, which are too few or too uneven"
    if split > combine:
        return waited, "splitting", f"the driver takes {split:.2g} s to cut the input, and workers wait for it"
    return waited, "combining", f"the driver takes {combine:.2g} s to take results over, and workers wait for it"


Measured = tuple[int, float]
"""Workers, and the speed-up over one of them."""


class SpeedupLaw(NamedTuple):
    """A law of speed-up with its parameters."""

    contention: float
    """Share of the work that cannot be divided: Amdahl's ``s``, Gunther's ``sigma``."""
    coherency: float = 0.0
    """What each pair of workers costs: Gunther's ``kappa``, 0 in Amdahl's law."""

    def speedup(self, workers: float) -> float:
        """Return how many times as fast as one so many workers are."""
        more = workers - 1
        return workers / (1 + self.contention * more + self.coherency * workers * more)

    @property
    def peak(self) -> float:
        """Workers with which it is fastest; infinite where more never hurt."""
        if self.coherency <= 0:
            return math.inf
        return max(1.0, math.sqrt(max(0.0, 1 - self.contention) / self.coherency))

    @property
    def limit(self) -> float:
        """The speed-up that no number of workers exceeds."""
        if self.coherency > 0:
            return self.speedup(self.peak)
        return 1 / self.contention if self.contention > 0 else math.inf


def fit_amdahl(measured: Sequence[Measured]) -> SpeedupLaw | None:
    """Return Amdahl's law as it fits best; ``None`` where nothing but one worker was measured.

    ``n / S - 1 = s (n - 1)`` is a line through the origin.
    """
    points = _linear(measured)
    if not points:
        return None
    slope = sum(x * y for x, _, y in points) / sum(x * x for x, _, _ in points)
    return SpeedupLaw(min(1.0, max(0.0, slope)))


def fit_usl(measured: Sequence[Measured]) -> SpeedupLaw | None:
    """Return the Universal Scalability Law as it fits best; ``None`` for less than two numbers beyond one worker.

    ``n / S - 1 = sigma (n - 1) + kappa n (n - 1)``, solved by the normal equations. Neither parameter is
    negative: where one came out so it is 0, and the other one alone fits best.
    """
    points = _linear(measured)
    if len({x for x, _, _ in points}) < 2:
        return None
    xx, xz, zz, xy, zy = (
        sum(values) for values in zip(*((x * x, x * z, z * z, x * y, z * y) for x, z, y in points), strict=True)
    )
    determinant = xx * zz - xz * xz
    contention = (xy * zz - zy * xz) / determinant
    coherency = (zy * xx - xy * xz) / determinant
    if coherency < 0:
        contention, coherency = xy / xx, 0.0
    elif contention < 0:
        contention, coherency = 0.0, zy / zz
    return SpeedupLaw(min(1.0, max(0.0, contention)), max(0.0, coherency))


def _linear(measured: Sequence[Measured]) -> list[tuple[float, float, float]]:
    """Return what each point beyond one worker gives to the sums of least squares."""
    return [(n - 1.0, n * (n - 1.0), n / speedup - 1) for n, speedup in measured if n > 1 and speedup > 0]
