"""Guard against jobs that start themselves recursively.

A worker imports the module of a function to unpickle it. A job at the top level of that module would start
in each worker, whose workers would start it again. `multiprocessing` refuses this as well.
"""

from __future__ import annotations

import os
import sys
from types import FrameType

from batchflow.core.package import PACKAGE_DIR

DEPTH = "BATCHFLOW_DEPTH"
"""Environment variable with the nesting depth of this process in jobs."""
STARTING = "+"
"""Suffix of that number while the process that workers are forked from starts and may run a `sitecustomize`."""
MAX_DEPTH = 3
"""Maximum nesting depth of jobs, which stops a function that starts a job of itself."""
LOADING: list[None] = []
"""Not empty while this process imports or unpickles user code; one item for each nested import.

A global of the process, because imported code may start its job in a thread.
"""


def depth() -> int:
    """Return the nesting depth of this process in jobs: 0 in a driver, 1 in its workers."""
    text = os.environ.get(DEPTH, "").removesuffix(STARTING)
    return int(text) if text.isdecimal() else 0


def check_start() -> None:
    """Refuse to start a job while user code is being imported, or if jobs are nested too deeply.

    Raises
    ------
    UsageError
        If the job would start itself recursively.
    """
    starts = os.environ.get(DEPTH, "").endswith(STARTING)
    if not LOADING and not starts and not _is_inheriting() and depth() < MAX_DEPTH:
        return
    from batchflow.errors import UsageError  # only imported for an error

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
    """Whether this is a `multiprocessing` process that is still importing its main module."""
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
