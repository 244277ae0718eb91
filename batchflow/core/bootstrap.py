"""Refusal of jobs that would start themselves again without end.

A worker imports the module of a function to unpickle it. A job at the top of that module would start
in each worker, whose workers would start it in turn. `multiprocessing` refuses this as well.
"""

from __future__ import annotations

import os
import sys
from types import FrameType

from batchflow.core.package import PACKAGE_DIR

DEPTH = "BATCHFLOW_DEPTH"
"""Variable of the environment: how many jobs this process is nested in."""
STARTING = "+"
"""Behind that number while the process that workers are forked from starts, and runs a `sitecustomize`."""
MAX_DEPTH = 3
"""Jobs inside jobs at most: a function that starts a job of itself ends here."""
LOADING: list[None] = []
"""Not empty while this process imports or unpickles code of the user; one item for each nested import.

A global of the process: code that is imported may start its job in a thread.
"""


def depth() -> int:
    """Return how many jobs this process is nested in: 0 in a driver, 1 in its workers."""
    text = os.environ.get(DEPTH, "").removesuffix(STARTING)
    return int(text) if text.isdecimal() else 0


def check_start() -> None:
    """Refuse to start a job while code of the user is imported, or too many jobs inside each other.

    Raises
    ------
    UsageError
        If the job would start itself again without end.
    """
    starts = os.environ.get(DEPTH, "").endswith(STARTING)
    if not LOADING and not starts and not _is_inheriting() and depth() < MAX_DEPTH:
        return
    from batchflow.errors import UsageError  # only for those who are refused

    if depth() < MAX_DEPTH:
        message = (
            f"{_place()} starts a job while it is imported, and each worker that imports it would start that job "
            'again: put the job under  if __name__ == "__main__":'
        )
        raise UsageError(message)
    message = (
        f"{MAX_DEPTH} jobs are nested in each other, and one more would start in a worker of the innermost: "
        "return the values from the function and process them in a second job"
    )
    raise UsageError(message)


def _is_inheriting() -> bool:
    """Whether this is a process of `multiprocessing` that still imports its main module."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and getattr(process.current_process(), "_inheriting", False)


def _place() -> str:
    """Return file and line of the innermost module that is being imported."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if frame.f_code.co_name == "<module>" and not file.startswith((PACKAGE_DIR, "<")):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return "your module"
