"""Starts the process that workers are forked from, before the rest of batchflow is loaded.

A fresh interpreter takes 0.1 s to be of use, and so do our own modules: side by side they take half.
So this module imports nothing of batchflow, and the verbs call `ahead` first of all.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

_THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "POLARS_MAX_THREADS",
)  # fmt: skip
"""What numeric libraries take their number of threads from; one worker per core needs no more."""


class Zygote(NamedTuple):
    """A process that workers are forked from, as the driver holds it."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    threads: int
    """Threads that numeric libraries in its workers use."""

    def close(self) -> None:
        """Let it kill its workers and end."""
        self.control.close()
        self.process.wait()


_ahead: list[Zygote] = []
"""At most one, that waits for an executor to take it."""


def start(threads: int, *, arrow: bool, rows: bool = False, waits: bool = False) -> Zygote:
    """Start a zygote; returns at once, while it is still loading.

    Parameters
    ----------
    threads
        Threads that numeric libraries in its workers use.
    arrow
        Whether it loads Arrow, once for all workers; otherwise those do that need it.
    rows
        Whether it loads what Arrow needs to make rows of Python's values: pandas, wherever that is installed.
    waits
        Whether it loads what runs calls that wait.
    """
    ours, theirs = socket.socketpair()
    code = (
        "import gc; gc.disable(); "  # until all is loaded: 3 of 50 ms
        f"import sys; sys.path[:] = {sys.path!r}; sys.argv[:] = {sys.argv!r}; "
        f"from batchflow.executors.zygote import main; main({theirs.fileno()}, {arrow=}, {rows=}, {waits=})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        pass_fds=[theirs.fileno()],
        stdin=subprocess.DEVNULL,
        env={**dict.fromkeys(_THREADS, str(threads)), **os.environ},
        process_group=0,  # Ctrl-C is for the driver to handle
    )
    theirs.close()
    return Zygote(process, ours, threads)


@contextmanager
def ahead(
    executor: object, *, threads: int, arrow: bool, rows: bool = False, waits: bool = False
) -> Iterator[None]:
    """Have a zygote ready for the job inside, if it will most likely ask for one.

    Parameters
    ----------
    executor
        What the user asked for: ``None`` or a name; an executor of the user's own may be warm already.
    threads, arrow, rows, waits
        As for `start`.
    """
    if not _ahead and (executor or os.environ.get("BATCHFLOW_EXECUTOR") or default_name()) == "processes":
        _ahead.append(start(threads, arrow=arrow, rows=rows, waits=waits))
    try:
        yield
    finally:
        with suppress(IndexError):  # most likely it was taken; else the job was refused, or ran elsewhere
            _ahead.pop().close()


def take(threads: int, *, arrow: bool) -> Zygote:
    """Return the zygote that waits, if it fits, or a new one."""
    return _ahead.pop() if _ahead and _ahead[0].threads == threads else start(threads, arrow=arrow)


def default_name() -> str:
    """Return the executor of a job that names none: Ray where it runs already, else worker processes."""
    ray = sys.modules.get("ray")  # not imported: a Ray that runs in this process was imported by its user
    running = ray is not None and ray.is_initialized()
    return "ray" if running or os.environ.get("RAY_ADDRESS") else "processes"
