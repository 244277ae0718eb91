"""Executors: tasks in this process, in worker processes, or on Ray, behind one small interface.

The executors load when they are first used: a worker process imports this package and needs none.
"""

from __future__ import annotations

import importlib
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from batchflow.core.bootstrap import check_start
from batchflow.core.text import did_you_mean
from batchflow.errors import ExecutorError, UsageError

if TYPE_CHECKING:
    from batchflow.executors.base import Executor
    from batchflow.executors.processes.executor import Processes
    from batchflow.executors.ray import Ray
    from batchflow.executors.serial import Serial

__all__ = ["Executor", "Processes", "Ray", "Serial", "choose", "chosen", "turn_of"]

_CLASSES = {"Executor": "base", "Processes": "processes.executor", "Ray": "ray", "Serial": "serial"}
_NAMES = {"serial": "Serial", "processes": "Processes", "ray": "Ray"}


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(importlib.import_module(f"batchflow.executors.{_CLASSES[name]}"), name)
    message = f"module 'batchflow.executors' has no attribute {name!r}"
    raise AttributeError(message)


class Turn:
    """Exclusive use of an executor by one thread; jobs of other threads wait.

    Within its thread a job may begin while another one runs: two streams, say, or a job in a listener.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._owner = 0
        """Identifier of the owning thread."""
        self._jobs = 0
        self._streams = 0
        _turns.add(self)

    def fork(self) -> None:
        """Release, in a fork, what threads of the parent held."""
        self._changed = threading.Condition()
        if self._owner != threading.get_ident():
            self._jobs = self._streams = 0

    @contextmanager
    def taken(self, *, streams: bool = False) -> Iterator[None]:
        """Acquire the executor for this thread.

        Parameters
        ----------
        streams
            Whether the job lasts as long as its consumer likes, so that no other thread can wait for its end.

        Raises
        ------
        ExecutorError
            If another thread reads a stream from the executor.
        """
        with self._changed:
            while self._jobs and self._owner != threading.get_ident():
                if self._streams:
                    raise _streamed_elsewhere()
                self._changed.wait()
            self._owner = threading.get_ident()
            self._jobs += 1
            self._streams += streams
        try:
            yield
        finally:
            with self._changed:
                self._jobs -= 1
                self._streams -= streams
                self._changed.notify_all()


_turns: weakref.WeakSet[Turn] = weakref.WeakSet()


def _fork_turns() -> None:
    for turn in list(_turns):
        turn.fork()


os.register_at_fork(after_in_child=_fork_turns)


def _streamed_elsewhere() -> ExecutorError:
    message = (
        "another thread reads a stream from this executor: close that stream before, or give this job an "
        "executor of its own, executor=bf.Processes()"
    )
    return ExecutorError(message)


def turn_of(executor: Executor) -> Turn:
    """Return the lock of an executor that serializes its threads."""
    turn: Turn = vars(executor).setdefault("_turn", Turn())
    return turn


@contextmanager
def chosen(
    executor: Executor | str | None, *, needs_ray: bool = False, streams: bool = False
) -> Iterator[Executor]:
    """Yield the executor that `choose` returns, and close it afterwards unless it is warm.

    Parameters
    ----------
    streams
        As for `Turn.taken`.
    """
    executor = choose(executor, needs_ray=needs_ray)
    with turn_of(executor).taken(streams=streams):
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
        If there is none of that name, or the job would start itself again without end.
    """
    check_start()
    if not isinstance(executor, str | None):
        if isinstance(executor, type) or not hasattr(executor, "submit"):
            message = f"executor={executor!r} is none: give one like bf.Ray(), or a name: {', '.join(_NAMES)}"
            raise UsageError(message)
        return executor
    from batchflow.executors.processes.launcher import default_name  # a worker process starts no other

    name = executor or os.environ.get("BATCHFLOW_EXECUTOR") or ("ray" if needs_ray else default_name())
    if name not in _NAMES:
        message = f"unknown executor {name!r}: use one of {', '.join(_NAMES)}{did_you_mean(name, _NAMES)}"
        raise UsageError(message)
    chosen: Executor = __getattr__(_NAMES[name])()
    return chosen
