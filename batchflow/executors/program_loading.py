"""Programs on a worker: pickled once and loaded once; a failure to load is the outcome of each task."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from batchflow.core.bootstrap import LOADING
from batchflow.core.outcomes import Outcome
from batchflow.core.pickle_by_value import define_main, files, files_by_reference, has_modules_by_value
from batchflow.core.retry import NEVER, Retry
from batchflow.core.serialization import Buffers, Pickled, dumps_out_of_band, pack_shared
from batchflow.core.work import AssemblePart, Call, Task, WorkItem
from batchflow.errors import FunctionError
from batchflow.worker import Limits, Program, Runner, TaskLimits, failed, settle


def pickled(program: Program) -> tuple[bytes, Buffers]:
    """Pickle a program to bytes and large buffers; functions of ``__main__`` and closures go by value.

    Raises
    ------
    FunctionError
        If something it refers to cannot be pickled.
    """
    try:
        return _dumped(program)
    except Exception as error:
        with suppress(Exception), files_by_reference():  # of a file with a lock or a connection at its top
            if files:
                return _dumped(program)
        name = getattr(program.fn, "__qualname__", repr(program.fn))
        message = (
            f"{name} cannot be shipped to a worker: {error}; "
            "make what it refers to inside the function, or in setup="
        )
        raise FunctionError(message) from error


def _dumped(program: Program) -> tuple[bytes, Buffers]:
    by_reference = not has_modules_by_value()
    if program.args:
        args: Any = pack_shared(dict(program.args), by_reference=by_reference)
        program = program._replace(args=args)
    return dumps_out_of_band(program, by_reference=by_reference)


class BrokenProgram:
    """Stand-in for the runner of a program that cannot be unpickled."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def perform(self, work: WorkItem, more: Any = None) -> Outcome:
        """Return the load failure as the outcome of the work."""
        return failed(work, "worker", self._error)._replace(unloadable=True)

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


class LoadedProgram:
    """Program on a worker, deserialized within the limits of its first task.

    Parameters
    ----------
    make
        Makes it again, which may run code of the user's.
    limits
        Of one task.
    waits
        Whether its calls wait, so that asyncio is needed. It is loaded at the expense of no task: an import
        that a time limit breaks off leaves half a package behind, which no later task can use.
    cells
        Memory that is shared with the driver, for the position of the task at hand.
    announce
        Announces the start and the end of ``setup=``, as for `Runner`.
    """

    def __init__(
        self,
        make: Callable[[], Program],
        limits: Limits,
        *,
        waits: bool,
        cells: memoryview | None = None,
        announce: Callable[[Task, bool], None] | None = None,
    ) -> None:
        self._cells = cells
        self._announce = announce
        self.limits = limits
        self.waits = waits
        self._make: Callable[[], Program] | None = make
        self._runner: Runner | BrokenProgram

    def runner(self) -> Runner | BrokenProgram:
        """Return the runner of the program; a load interrupted by a limit is repeated on the next call."""
        if self._make is not None:
            if self.waits:
                import batchflow.worker.concurrent_task  # noqa: F401
            try:
                program = opened(self._opened, self.limits)
                for fn in (program.fn, program.setup, program.combine):
                    define_main(fn)
                self._runner = Runner(program, guarded=True, cells=self._cells, announce=self._announce)
            except MemoryError:
                raise
            except (Exception, SystemExit) as error:
                self._runner = BrokenProgram(error)
            self._make = None
            settle()
        return self._runner

    def _opened(self) -> Program:
        assert self._make is not None
        program = self._make()
        args: Any = program.args
        return program._replace(args=args.open()) if isinstance(args, Pickled) else program

    def close(self) -> None:
        """Release the resources of the program."""
        if self._make is None:
            self._runner.close()


def opened(make: Callable[[], Any], limits: Limits) -> Any:
    """Deserialize an object within limits; raises what the user's code in it raises, or `Overtime`."""
    LOADING.append(None)
    try:
        with TaskLimits(*limits):
            return make()
    except pickle.UnpicklingError as error:
        raise error.__cause__ or error from None
    finally:
        LOADING.pop()


def rules_of(work: WorkItem, limits: Limits, retry: Retry) -> tuple[Limits, Retry]:
    """Return the limits and retry policy of work: its own, else those of its job."""
    if isinstance(work, AssemblePart):
        return Limits(work.seconds), NEVER
    if isinstance(work, Call):
        return Limits(work.seconds, work.memory), work.retry
    return limits, retry
