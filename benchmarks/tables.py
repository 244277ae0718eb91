"""Standings as people and programs read them: a Markdown table with a verdict, and JSON."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.harness import Standing, Suite

_PACKAGES = (
    "batchflow",
    "pyarrow",
    "msgspec",
    "joblib",
    "mpire",
    "dask",
    "distributed",
    "ray",
    "daft",
    "polars",
    "duckdb",
    "aiohttp",
)


def markdown(suite: Suite, standings: Sequence[Standing]) -> str:
    """Return the standings as a table, and below it whether the targets are met."""
    unit = {"megabytes": "MB", "together": "MB", "percent": "%", "step": "ms a step"}.get(suite.measure, "s")
    ours, theirs = standings[: suite.ours], standings[suite.ours :]
    names = [one.contestant.name for one in ours] if suite.ours > 1 else ["ours"]
    header = [
        "contestant",
        f"median {unit}",
        f"min..max {unit}",
        *(f"{name} / theirs" for name in names),
        *(["whole process s"] if suite.measure == "step" else []),
    ]
    rows = [
        [
            one.contestant.name,
            f"{one.median:.3f}",
            f"{min(one.values):.3f}..{max(one.values):.3f}",
            *("" if one in ours else f"{own.median / one.median:.2f}" for own in ours),
            *([f"{statistics.median(one.wholes):.2f}"] if suite.measure == "step" else []),
        ]
        for one in standings
    ]
    return "\n".join([_table([header, *rows]), "", *(_verdict(one, theirs, unit) for one in ours)])


def _table(rows: Iterable[Sequence[str]]) -> str:
    header, *rest = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([header, f"|---|{'---:|' * header.count(' | ')}", *rest])


def _verdict(ours: Standing, others: Sequence[Standing], unit: str) -> str:
    """Return a sentence about the contestant that leaves the least room to its target, and one's own limit."""
    told = []
    most = {one.contestant.target * one.median: one for one in others if one.contestant.target}
    if most:
        tightest = most[min(most)]
        ratio, target = ours.median / tightest.median, tightest.contestant.target
        met = "met" if ratio <= target else "MISSED"
        told.append(f"Target {met}: {ratio:.3f} of {tightest.contestant.name}, at most {target:g}.")
    if ours.contestant.most is not None:
        met = "met" if ours.median <= ours.contestant.most else "MISSED"
        told.append(
            f"Target {met}: {ours.contestant.name} {ours.median:.3f} {unit}, at most {ours.contestant.most:g}."
        )
    return " ".join(told) or "No target."


def as_json(suite: Suite, standings: Sequence[Standing]) -> dict[str, Any]:
    """Return the standings with all values."""
    ours = standings[0].median
    rows = [
        {
            "name": one.contestant.name,
            "median": one.median,
            "ratio": ours / one.median,
            "target": one.contestant.target,
            "values": one.values,
            "wholes": one.wholes,
        }
        for one in standings
    ]
    return {"question": suite.question, "measure": suite.measure, "contestants": rows}


def machine() -> dict[str, Any]:
    """Return what the numbers depend on: machine, its load right now, and versions."""
    versions = {name: _version(name) for name in _PACKAGES}
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **{name: version for name, version in versions.items() if version},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
