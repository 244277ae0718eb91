"""Where tasks run: in this process, in worker processes, or on Ray; one small contract.

The executors load when they are first used: a worker process imports this package and needs none.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from batchflow.errors import UsageError
from batchflow.suggesting import did_you_mean

if TYPE_CHECKING:
    from batchflow.executors.base import Executor
    from batchflow.executors.processes import Processes
    from batchflow.executors.ray import Ray
    from batchflow.executors.serial import Serial

__all__ = ["Executor", "Processes", "Ray", "Serial", "choose", "chosen"]

_CLASSES = {"base": "Executor", "processes": "Processes", "ray": "Ray", "serial": "Serial"}
_NAMES = ("serial", "processes", "ray")


def __getattr__(name: str) -> Any:
    for module, kind in _CLASSES.items():
        if kind == name:
            return getattr(importlib.import_module(f"batchflow.executors.{module}"), name)
    message = f"module 'batchflow.executors' has no attribute {name!r}"
    raise AttributeError(message)


@contextmanager
def chosen(executor: Executor | str | None, *, needs_ray: bool = False) -> Iterator[Executor]:
    """Give the executor to use, as `choose` does, and close it again unless it is warm."""
    executor = choose(executor, needs_ray=needs_ray)
    try:
        yield executor
    finally:
        if not executor.warm:
            executor.close()


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
    if not isinstance(executor, str | None):
        if isinstance(executor, type) or not hasattr(executor, "submit"):
            message = f"executor={executor!r} is none: give one like bf.Ray(), or a name: {', '.join(_NAMES)}"
            raise UsageError(message)
        return executor
    from batchflow.launch import default_name  # a worker process starts no other

    name = executor or os.environ.get("BATCHFLOW_EXECUTOR") or ("ray" if needs_ray else default_name())
    if name not in _NAMES:
        message = f"unknown executor {name!r}: use one of {', '.join(_NAMES)}{did_you_mean(name, _NAMES)}"
        raise UsageError(message)
    chosen: Executor = __getattr__(_CLASSES[name])()
    return chosen
