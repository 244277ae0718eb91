"""Where tasks run: in this process, in worker processes, or on Ray; one small contract."""

from __future__ import annotations

import os

from batchflow.errors import UsageError
from batchflow.executors.base import Executor
from batchflow.executors.processes import Processes
from batchflow.executors.ray import Ray
from batchflow.executors.serial import Serial
from batchflow.launch import default_name

__all__ = ["Executor", "Processes", "Ray", "Serial", "choose"]

_NAMES: dict[str, type[Executor]] = {"serial": Serial, "processes": Processes, "ray": Ray}


def choose(executor: Executor | str | None, *, needs_ray: bool = False) -> Executor:
    """Return the executor to use.

    What was asked for; else what ``BATCHFLOW_EXECUTOR`` names; else Ray where it is already
    initialised, where ``RAY_ADDRESS`` is set or where a task asks for what only Ray can place; else
    worker processes.

    Raises
    ------
    UsageError
        If there is none of that name.
    """
    if isinstance(executor, Executor):
        return executor
    name = executor or os.environ.get("BATCHFLOW_EXECUTOR") or ("ray" if needs_ray else default_name())
    if name not in _NAMES:
        message = f"unknown executor {name!r}: use one of {', '.join(_NAMES)}"
        raise UsageError(message)
    return _NAMES[name]()
