"""Positions of tasks in files on their node, read by another task after a worker ended."""

from __future__ import annotations

import glob
import mmap
import os
import tempfile
from contextlib import suppress
from typing import Any

from batchflow.core.outcomes import Position
from batchflow.core.work import Task
from batchflow.worker.position import CELLS, PositionCells

_NAME = 256
_SIZE = 8 * CELLS + _NAME


class PositionFile:
    """Position of the current task of this process, in a file that outlives it.

    Parameters
    ----------
    job
        What the job is known by to workers.
    """

    def __init__(self, job: str) -> None:
        self._path = f"{_prefix(job)}{os.getpid()}-{os.urandom(4).hex()}"
        self.cells: memoryview | None = None
        """Memory of the position, ``None`` if no file can be created."""
        with suppress(OSError), open(self._path, "x+b") as file:
            file.truncate(_SIZE)
            memory = memoryview(mmap.mmap(file.fileno(), _SIZE))
            self._name = memory[8 * CELLS :]
            self.cells = memory[: 8 * CELLS].cast("Q")

    def begin(self, task: Task) -> None:
        """Record the start of a task."""
        if self.cells is not None:
            PositionCells(self.cells).clear()
            self._name[:] = task_name(task)

    def close(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            os.unlink(self._path)


def take_position(job: str, name: bytes) -> Position | None:
    """Return the position of a task whose worker was on this node, and remove its file."""
    for path in glob.glob(f"{glob.escape(_prefix(job))}*"):
        with suppress(OSError), open(path, "rb") as file:
            content = file.read()
            if content[8 * CELLS :] == name:
                os.unlink(path)
                return PositionCells(memoryview(bytearray(content[: 8 * CELLS])).cast("Q")).read()
    return None


def _prefix(job: str) -> str:
    import ray

    node: Any = ray._private.worker._global_node  # nothing public tells its folder
    return f"{node.get_session_dir_path() if node else tempfile.gettempdir()}/batchflow-{job}-"


def task_name(task: Task) -> bytes:
    """Return the name of a task in its position file."""
    return f"{task.key} {task.attempt}".encode()[:_NAME].ljust(_NAME)
