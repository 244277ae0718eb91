"""The exceptions of batchflow; each message says what, where and what to do.

::

    BatchflowError
    ├── UsageError (ValueError)              refused before anything runs; exit status 2
    │   ├── InputError (FileNotFoundError)   no file matches, or none can be listed
    │   ├── FormatError                      a format or compression that is not known
    │   ├── FunctionError                    cannot be found, imported or shipped to a worker
    │   ├── DestinationError (FileExistsError)   exists and is not ours, or cannot be written
    │   ├── ChangedError                     an earlier run was of another function, option or input
    │   ├── LedgerError                      the record of an earlier run is damaged
    │   └── ResourceError                    a cap or request that can never be met
    ├── SchemaError (TypeError)              rows that cannot stand in one table
    ├── StoppedError                         over ``max_errors``, or nothing succeeds; exit status 3
    ├── OutputError (OSError)                the output cannot be written on; what is done is kept
    ├── FailedRecordsError                   from ``Result.raise_for_errors``
    ├── RetryAfter                           raised by your function: try this record again, but later
    ├── FlowError                            a step of a flow failed, and the flow was aborted
    ├── StepError                            a step of a flow has no value to give
    └── ExecutorError (RuntimeError)         the executor itself cannot go on
        └── WorkerDied                       a worker process ended in the middle of a task

    UserWarning
    └── FailedRecordsWarning                 rows are used, and nobody has looked at the errors

    KeyboardInterrupt
    └── InterruptedRun                       Ctrl-C; the message says how to go on; exit status 130

Classes with a second base are also caught by an ``except`` clause for that base.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Literal

    import pyarrow as pa

    from batchflow.flows.result import FlowRun
    from batchflow.reporting.report import Report

    StopReason = Literal["max_errors", "all_failed", "setup"]


class BatchflowError(Exception):
    """Base of all errors raised by batchflow."""


class UsageError(BatchflowError, ValueError):
    """Invalid arguments, detected before anything runs."""


class InputError(UsageError, FileNotFoundError):
    """Input that matches nothing, or cannot be listed."""

    def __str__(self) -> str:
        return Exception.__str__(self)  # not the errno and file name of an OSError


class FormatError(UsageError):
    """Unknown file format or compression."""


class FunctionError(UsageError):
    """Function that cannot be found, imported or pickled."""


class DestinationError(UsageError, FileExistsError):
    """Destination that exists and belongs to another program, or that cannot be written."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class ChangedError(UsageError):
    """Output of another function, of other options or of other input."""


class LedgerError(UsageError):
    """Damaged ledger of earlier runs."""


class ResourceError(UsageError):
    """Resource request that can never be met."""


class SchemaError(BatchflowError, TypeError):
    """Rows whose types do not fit into one table."""


class StoppedError(BatchflowError):
    """The job stopped: over ``max_errors``, none of the first 1,000 records succeeded, or ``setup=`` failed.

    Attributes
    ----------
    errors : pyarrow.Table
        The error table so far.
    report : Report or FlowRun
        What was done until the stop.
    reason : str
        ``"max_errors"``, ``"all_failed"`` or ``"setup"``.
    """

    def __init__(
        self, message: str, errors: pa.Table, report: Report | FlowRun, reason: StopReason = "max_errors"
    ) -> None:
        super().__init__(message)
        self.errors = errors
        self.report = report
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.errors, self.report, self.reason)


GO_ON = "what is done is kept: run the same command again to go on"


class OutputError(BatchflowError, OSError):
    """Failed write of the output, for example on a full disk; the same command resumes later."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class FailedRecordsError(BatchflowError):
    """Some records failed; raised on request only, by ``Result.raise_for_errors``.

    Attributes
    ----------
    errors : pyarrow.Table
        The error table.
    """

    def __init__(self, message: str, errors: pa.Table) -> None:
        super().__init__(message)
        self.errors = errors

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.errors)


class FailedRecordsWarning(UserWarning):
    """The rows of a job are used of which some records failed, and nobody has looked at its errors.

    Issued once for a result, unless ``errors`` was looked at, or ``max_errors=`` says how many may fail.
    """


class RetryAfter(BatchflowError):
    """Raised by your function, for a response 429, say: the record is to be tried again, but not before a time.

    It is tried three times in all, or as often as ``retry=`` of the job says. With ``rate=`` no call of
    the job starts until then, since whoever says so means all of us.

    Parameters
    ----------
    seconds
        From now on; a text is taken too, as it stands in a ``Retry-After`` header.

    Raises
    ------
    ValueError
        If that is not a number of seconds.
    """

    def __init__(self, seconds: float | str) -> None:
        try:
            asked = float(seconds)
        except (TypeError, ValueError):
            asked = math.nan
        if not asked <= _LONGEST_PAUSE:
            message = f"RetryAfter({seconds!r}): give a number of seconds, a day at most"
            raise ValueError(message)
        self.seconds: float = max(0.0, asked)
        super().__init__(f"asked to try again in {self.seconds:g} seconds")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.seconds,)


_LONGEST_PAUSE = 86_400.0


class FlowError(BatchflowError):
    """A step failed, and the flow was aborted; ``flow.run(on_error="continue")`` returns the run instead.

    Attributes
    ----------
    run : FlowRun
        State, value and errors of each step.
    """

    def __init__(self, message: str, run: FlowRun) -> None:
        super().__init__(message)
        self.run = run

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.run)


class StepError(BatchflowError):
    """Missing value of a step that failed, was skipped, or whose value another step took."""


class ExecutorError(BatchflowError, RuntimeError):
    """Failure of the executor itself."""


class WorkerDied(ExecutorError):
    """Death of a worker process during a task."""


class InterruptedRun(KeyboardInterrupt):
    """Somebody pressed Ctrl-C; the message says what is done and how to go on.

    Attributes
    ----------
    run : FlowRun or None
        Of a flow whose running steps could finish: what became of each.
    """

    def __init__(self, message: str = "", run: FlowRun | None = None) -> None:
        super().__init__(message)
        self.run = run
