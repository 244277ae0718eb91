"""A report in a few lines, as it is printed at the end of a job: under twelve, whatever happened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from batchflow.core.text import counted, next_version, printable

if TYPE_CHECKING:
    from batchflow.reporting.report import Report

_ADVICE = 2
"""Maximum pieces of advice in a summary; `Report.advice` has all."""
_LEAST = 0.01
"""Minimum share of the time that is mentioned."""


def summary(report: Report, following: str | None = None) -> str:
    """Return what a job did, in under twelve lines.

    Parameters
    ----------
    following
        What to do about failures; by default in the words of Python.
    """
    return "\n".join(_lines(report, following))


def _lines(report: Report, following: str | None) -> Iterator[str]:
    done = f"{counted(report.rows_in, 'record')} in, {counted(report.rows_out, 'row')} out"
    yield f"{done}, {report.failed:,} failed, {counted(report.retries, 'retry')}{_isolation(report)}"
    if report.executor:
        yield from _work(report)
    elif report.complete:
        yield "nothing to do: all of it was done before"
    yield from _kinds(report)
    if report.executor and report.output:
        what = "report" if not report.failed else "errors and report"
        yield f"output in {shown(report.output)}; {what} in {shown(report.meta)}"
    if report.failed:
        yield f"next: {following or _next(report)}"


def _isolation(report: Report) -> str:
    """Return the number and duration of isolation tasks."""
    if not report.isolation_tasks:
        return ""
    tasks = counted(report.isolation_tasks, "task")
    return f" ({tasks} to isolate a failed record, {report.isolation_seconds:.2f} s)"


def _kinds(report: Report) -> Iterator[str]:
    """Yield the commonest kinds of errors, and in the last line how many more there are."""
    shown = [str(kind) for kind in report.commonest]
    more = report.kinds - len(shown)
    if shown and more > 0:
        shown[-1] += f" (and {counted(more, 'more kind')} of errors)"
    yield from shown


def _work(report: Report) -> Iterator[str]:
    """Yield the duration of the job, and its breakdown."""
    rate = (report.rows_in - report.before) / report.seconds if report.seconds else 0
    before = f"{report.before:,} of them done before; " if report.before else ""
    yield (
        f"{before}{report.seconds:.2f} s, {rate:,.0f} records/s, {worth(report)}, "
        f"{counted(report.chunks, 'chunk')}, peak {report.peak_memory / 1e6:,.0f} MB per worker"
    )
    total = sum(report.time.values())
    shares = [f"{spent / total:.0%} {name}" for name, spent in report.time.items() if spent > _LEAST * total]
    if shares:
        yield f"workers' time: {', '.join(shares)}"
    yield from (f"advice: {line}" for line in report.advice[:_ADVICE])
    if report.logs:
        yield f"messages of {report.executor}: {report.logs}"


def worth(report: Report) -> str:
    """Return what all workers together were worth."""
    alone = "" if report.over_one is None else f", {report.over_one:.1f} times as fast as one alone"
    return f"{report.speedup:.1f} workers' worth on {report.slots} ({report.executor or 'none'}){alone}"


def _next(report: Report) -> str:
    """Return the Python code to run after a job with failures."""
    if not report.output:
        return "result.errors lists them; with into= they are kept, and result.retry_failed() tries them again"
    fn = f"{report.function}, " if report.function.isidentifier() else ""
    version = next_version(report.version)
    return f"result.errors lists them; once fixed, result.retry_failed({fn}version={version!r})"


def shown(path: str) -> str:
    """Return a path as the user types it: relative if it is below the working directory."""
    here = os.getcwd() + os.sep
    if "://" in path:
        return printable(path)
    end = "/" if path.endswith("/") else ""
    return printable((os.path.normpath(path) + end).removeprefix(here))
