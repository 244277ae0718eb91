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
"""Minimum seconds of a job for which advice is given."""
SHORT_SECONDS = 0.002
"""Task duration in seconds below which chunks are too small: overhead is 0.1 ms each, 0.5 ms on Ray."""
LOST_SHARE = 0.2
"""Minimum share of the workers' time lost between chunks for advice on chunk size."""
MANY_CHUNKS = 50
"""Minimum number of chunks for an estimate of the overhead of each."""
MANY_FAILED = 100
"""Minimum number of records, all failed, for which the function is blamed."""
WAITING_SHARE = 0.9
"""Minimum waiting share of a call that is considered I/O-bound; busy machines stay below it."""
DISK_SHARE = 0.5
"""Minimum waiting share of reading for disk-bound input."""
DISK_OF_TASKS = 0.3
"""Minimum share of reading in all tasks for disk-bound input."""
UNCUT_SHARE = 0.5
"""Minimum share of the job's time that a dominating file takes."""
UNCUT_EXCESS = 1.2
"""Minimum ratio between a dominating file's time and the share of one worker."""
MEMORY_SHARE = 0.85
"""Share of the memory limit above which a slightly larger record exceeds it."""
IDLE_BYTES = 60_000_000
"""Bytes of a worker with Arrow before its first task, in addition to the limit."""
MOST_CALLS = 100
"""Maximum number of concurrent calls advised, which is the default of async functions."""


def advise(report: Report, terms: ReportContext) -> tuple[str, ...]:
    """Return one line of advice each, the most useful first; nothing for a healthy job."""
    if report.seconds < WORTH_SECONDS or not report.task_seconds:
        return (*terms.doubts, *_memory(report, terms))
    rules = (_all_failed, _uncut, _waiting, _disk, _chunks, _memory)
    return (*terms.doubts, *(line for rule in rules for line in rule(report, terms)))


def waited(report: Report, phase: str) -> float:
    """Return the minimum seconds that tasks waited in a phase."""
    idle = report.task_seconds - report.cpu_seconds
    return max(0.0, idle - (report.task_seconds - report.time[phase]))


def _all_failed(report: Report, terms: ReportContext) -> Iterator[str]:
    """Advise how to find a mistake that affects every record before a whole run."""
    if report.failed == report.rows_in >= MANY_FAILED and report.kinds == 1:
        yield (
            "every record failed in the same way: max_errors= (--max-errors) stops such a run early, and "
            "batchflow plan tries a sample before it"
        )


def _uncut(report: Report, terms: ReportContext) -> Iterator[str]:
    """Name the unsplittable file that kept the job running while other workers were idle."""
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
    """Advise concurrent calls if calls are I/O-bound and hold a core."""
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
    """Report that tasks wait for their input."""
    del terms
    read, idle = report.time["read"], waited(report, "read")
    if idle > DISK_SHARE * read and idle > DISK_OF_TASKS * report.task_seconds:
        yield (
            f"workers waited for their input {idle / report.task_seconds:.0%} of their time: disk or network "
            "give no more, so more workers gain nothing; compressed or fewer columns, there is less to read"
        )


def _chunks(report: Report, terms: ReportContext) -> Iterator[str]:
    """Report that a fixed chunk size is too small, and suggest another one."""
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
    """Round a number to two significant digits."""
    return max(1, int(float(f"{number:.1e}")))


def _memory(report: Report, terms: ReportContext) -> Iterator[str]:
    """Report that tasks are near their memory limit."""
    if terms.memory and report.peak_memory - IDLE_BYTES > MEMORY_SHARE * terms.memory:
        yield (
            f"a worker took {format_bytes(report.peak_memory)}, and a task may take {format_bytes(terms.memory)}: "
            "raise per_task memory, or make chunks smaller, before a larger record fails"
        )
