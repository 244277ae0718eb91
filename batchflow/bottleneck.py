"""What keeps more workers from being as many times as fast: where their time went that one worker did not need."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from batchflow.printable import printable
from batchflow.report import Report

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
