"""What a job would gain by, where what was measured shows it; never a guess.

A task's processor time is known, and the time of its phases. What a phase waited at least is what the task
did not compute, less the whole of its other phases.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from batchflow.core.chunk_sizing import TARGET_SECONDS
from batchflow.core.resources import format_bytes
from batchflow.core.text import printable

if TYPE_CHECKING:
    from batchflow.reporting.report import Report, ReportContext

WORTH_SECONDS = 1.0
"""A job that is over sooner has nothing to gain that somebody would notice."""
SHORT_SECONDS = 0.002
"""Of the tasks of chunks that are too small: driver and worker need 0.1 ms for each, 0.5 ms on Ray."""
LOST_SHARE = 0.2
"""Of the workers' time that must be lost between chunks before it is worth another size."""
MANY_CHUNKS = 50
"""Fewer do not tell what a chunk costs."""
MANY_FAILED = 100
"""Records of which all failed, so that it is the function's fault."""
WAITING_SHARE = 0.9
"""Of a call that is waited: busy machines make calls wait too, but not nine tenths of their time."""
DISK_SHARE = 0.5
"""Of the reading that is waited,"""
DISK_OF_TASKS = 0.3
"""and of all tasks, before the input is what they wait for."""
UNCUT_SHARE = 0.5
"""Of the job's time that one file takes, before it dominates,"""
UNCUT_EXCESS = 1.2
"""and how many times its time is the share of one worker: otherwise the others are as late."""
MEMORY_SHARE = 0.85
"""Of the cap, at which a record a little larger than the others breaks it."""
IDLE_BYTES = 60_000_000
"""What a worker with Arrow in it takes before its first task, on top of which the cap counts."""
MOST_CALLS = 100
"""At once that are advised; so many an async function has by itself."""


def advise(report: Report, terms: ReportContext) -> tuple[str, ...]:
    """Return what would help most first, in a line each; nothing for a healthy job."""
    if report.seconds < WORTH_SECONDS or not report.task_seconds:
        return (*terms.doubts, *_memory(report, terms))
    rules = (_all_failed, _uncut, _waiting, _disk, _chunks, _memory)
    return (*terms.doubts, *(line for rule in rules for line in rule(report, terms)))


def waited(report: Report, phase: str) -> float:
    """Return the seconds that tasks waited in a phase, at least."""
    idle = report.task_seconds - report.cpu_seconds
    return max(0.0, idle - (report.task_seconds - report.time[phase]))


def _all_failed(report: Report, terms: ReportContext) -> Iterator[str]:
    """Say how a mistake that every record meets costs less than the whole run."""
    if report.failed == report.rows_in >= MANY_FAILED and report.kinds == 1:
        yield (
            "every record failed in the same way: max_errors= (--max-errors) stops such a run early, and "
            "batchflow plan tries a sample before it"
        )


def _uncut(report: Report, terms: ReportContext) -> Iterator[str]:
    """Say which file that cannot be cut kept the job running when others had nothing left to do."""
    if report.slots == 1 or terms.kind == "files":
        return
    fair = report.task_seconds / report.slots
    for slow in report.slowest[:1]:
        if slow.uncut and slow.seconds > max(UNCUT_SHARE * report.seconds, UNCUT_EXCESS * fair):
            yield (
                f"{printable(slow.source)} cannot be cut, as it is compressed, and took one worker "
                f"{slow.seconds:.1f} of {report.seconds:.1f} s: store it in several files, or uncompressed"
            )


def _waiting(report: Report, terms: ReportContext) -> Iterator[str]:
    """Say that calls wait and hold a core meanwhile."""
    call, idle = report.time["call"], waited(report, "call")
    if terms.calls or terms.rate or idle < WAITING_SHARE * call or call < sum(report.time.values()) / 2:
        return
    if terms.per == "record":
        calls = min(MOST_CALLS, max(2, round(call / max(call - idle, 1e-9))))
        cure = f"concurrency={calls} (--concurrency) lets a worker make so many at once"
    elif terms.cpus:
        cure = "per_task=Resources(cpus=0) (--cpus-per-task 0) runs four tasks for each core"
    else:
        return
    yield f"calls waited for {idle / call:.0%} of their time: {cure}, unless they wait for each other"


def _disk(report: Report, terms: ReportContext) -> Iterator[str]:
    """Say that tasks wait for their input."""
    del terms
    read, idle = report.time["read"], waited(report, "read")
    if idle > DISK_SHARE * read and idle > DISK_OF_TASKS * report.task_seconds:
        yield (
            f"workers waited for their input {idle / report.task_seconds:.0%} of their time: disk or network "
            "give no more, so more workers gain nothing; compressed or fewer columns, there is less to read"
        )


def _chunks(report: Report, terms: ReportContext) -> Iterator[str]:
    """Say that a fixed size of chunks is too small, and which one is not."""
    useful = sum(report.phases.values())
    count = report.chunks
    if terms.chunk is None or terms.rate or count < MANY_CHUNKS or useful > SHORT_SECONDS * count:
        return
    running = sum(report.time.values()) - report.time["start"]
    lost = (report.time["wait"] + report.time["other"]) / running
    if lost < LOST_SHARE:
        return
    times = min(TARGET_SECONDS / (useful / count), count / (4 * report.slots))
    if isinstance(terms.chunk, str):
        size = repr(format_bytes(round(report.bytes_read / count * times)).replace(" ", ""))
    else:
        size = f"{_rounded(terms.chunk * times)}"
    yield (
        f"chunks of {useful / count * 1000:.2g} ms are too small, {lost:.0%} of the workers' time is lost between "
        f"them: chunk={size} (--chunk), or leave it out"
    )


def _rounded(number: float) -> int:
    """Return a number with its first two digits."""
    return max(1, int(float(f"{number:.1e}")))


def _memory(report: Report, terms: ReportContext) -> Iterator[str]:
    """Say that tasks come near to their cap."""
    if terms.memory and report.peak_memory - IDLE_BYTES > MEMORY_SHARE * terms.memory:
        yield (
            f"a worker took {format_bytes(report.peak_memory)}, and a task may take {format_bytes(terms.memory)}: "
            "raise per_task memory, or make chunks smaller, before a larger record fails"
        )
