"""A race: programs that do one job, each a process of its own from start to end, taking turns.

This process imports neither Arrow nor batchflow: on Linux a program's peak memory counts from the
process that started it, so the harness has to stay smaller than what it measures.
"""

from __future__ import annotations

import compileall
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal

import psutil

from benchmarks.reporting import CHECK

_SCRIPTS = Path(__file__).with_name("contestants")
_ROOT = Path(__file__).parents[1]
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")

_SAMPLE_SECONDS = 0.05

OUT = "{out}"
"""Argument that stands for a path which does not exist yet, where a contestant may write."""


@dataclass(frozen=True)
class Contestant:
    """A program that does the job of a suite."""

    name: str
    script: str
    """A file in ``contestants/``."""
    args: tuple[str, ...] = ()
    target: float | None = None
    """What ours may take at most, as a multiple of this one; ``None``: shown, not judged."""
    needs: str | None = None
    """A package or program without which it does not run."""
    most: float | None = None
    """What it may need at most itself, whatever others do."""


@dataclass(frozen=True)
class Suite:
    """A question, and the contestants whose times or peaks answer it; the first ones are ours."""

    question: str
    contestants: Sequence[Contestant]
    measure: Literal["seconds", "call", "step", "percent", "megabytes", "together"] = "seconds"
    """Of the whole process; of the call that a contestant times itself, or its share of one step, in
    milliseconds, or a percentage in its place; of its peak memory, or of what it and all that it started took at
    most at the same time."""
    same_output: bool = True
    ours: int = 1
    """How many of the first contestants are ours, each judged for itself."""
    steps: int = 1
    """Steps in a call."""


@dataclass(frozen=True)
class Standing:
    """What one contestant needed, round after round."""

    contestant: Contestant
    values: list[float] = field(default_factory=list)
    wholes: list[float] = field(default_factory=list)
    """Seconds of the whole process, whatever is measured."""

    @property
    def median(self) -> float:
        """The middle one, which a single disturbed round does not move."""
        return statistics.median(self.values)


def race(suite: Suite, rounds: int) -> list[Standing]:
    """Run all contestants once to warm up and to compare their output, then in turns.

    Raises
    ------
    RuntimeError
        If a contestant fails, or gives another output than ours does.
    """
    compileall.compile_dir(_ROOT / "batchflow", quiet=1)  # as pip does when it installs, so for all peers
    able = [one for one in suite.contestants if one.needs is None or _is_there(one.needs)]
    checked = {one.name: _run(one, check=True)["digest"] for one in able}
    if suite.same_output and len(set(checked.values())) > 1:
        message = f"the contestants differ in their output: {checked}"
        raise RuntimeError(message)
    standings = [Standing(one) for one in able]
    for turn in range(rounds):
        first = turn % len(able)  # nobody always runs after the same one
        for standing in standings[first:] + standings[:first]:
            needed = _run(standing.contestant, watch=suite.measure == "together")
            standing.values.append(_measured(suite, needed))
            standing.wholes.append(needed["seconds"])
    return standings


def _is_there(name: str) -> bool:
    return importlib.util.find_spec(name) is not None or shutil.which(name) is not None


def _measured(suite: Suite, needed: dict[str, Any]) -> float:
    if suite.measure == "step":
        return needed["call"] * 1000 / suite.steps
    return needed["call" if suite.measure == "percent" else suite.measure]


def _run(contestant: Contestant, *, check: bool = False, watch: bool = False) -> dict[str, Any]:
    """Run a contestant and return what it needed, and the digest of its output."""
    folder = tempfile.mkdtemp(prefix="batchflow-benchmark-")
    out = os.path.join(folder, "out")
    args = [out if arg == OUT else arg for arg in contestant.args]
    try:
        started = time.perf_counter()
        running = subprocess.Popen(
            [sys.executable, _SCRIPTS / contestant.script, *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=_environment(check),
        )
        with _watching(running.pid) if watch else nullcontext([0]) as together:
            # Reading to the end of stdout waits for workers that outlive their driver, too.
            out, err = running.communicate()
        seconds = time.perf_counter() - started
    finally:
        shutil.rmtree(folder)
    if running.returncode:
        message = f"{contestant.name} failed with code {running.returncode}:\n{err}"
        raise RuntimeError(message)
    report = json.loads(out.splitlines()[-1])
    return {
        "seconds": seconds,
        "call": report["call"],
        "megabytes": report["peak"] / 1e6,
        "digest": report["digest"],
        "together": max(together) / 1e6,
    }


@contextmanager
def _watching(pid: int) -> Iterator[list[int]]:
    """Sample what a process and all that it started take together; shared pages count once."""
    sampled, over = [0], Event()

    def sample() -> None:
        while not over.wait(_SAMPLE_SECONDS):
            with suppress(psutil.Error):
                root = psutil.Process(pid)
                sampled.append(sum(map(_share, [root, *root.children(recursive=True)])))

    thread = Thread(target=sample)
    thread.start()
    try:
        yield sampled
    finally:
        over.set()
        thread.join()


def _share(process: psutil.Process) -> int:
    """Return the proportional set size of a process; none of one that has ended."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def _environment(check: bool) -> dict[str, str]:
    """Return the same environment for all: one thread in each library, the processes are what is compared."""
    env = {**os.environ, **dict.fromkeys(_THREADS, "1"), "PYTHONPATH": str(_ROOT)}
    return {**env, CHECK: "1"} if check else env
