"""What commands tell machines, with ``--json``: one shape for each command, whose keys stay.

A key may be added, and none goes or changes its meaning but with a new major version. All that is not
known is ``null``; sizes are bytes, times are seconds. docs/command-line.md describes them.
"""

from __future__ import annotations

import io
import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any, TextIO

from batchflow.core.text import ascii_json, printable, printable_json
from batchflow.reporting.failure_groups import FailureGroups

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pyarrow as pa

    from batchflow.cli.submit.job_server import JobInfo
    from batchflow.combiner.result import Result
    from batchflow.flows.flow import Flow
    from batchflow.flows.result import FlowRun, StepRun


Shape = dict[str, Any]

_JOB = ("id", "status", "begun", "seconds", "what", "into", "exit_code")


def result_to_json(result: Result) -> Shape:
    """Return what ``run`` and ``retry`` tell; the rows too, where they stand nowhere else."""
    return {
        "output": result.report.output or None,
        "report": result.report.as_dict(),
        "errors": of_errors(result.errors),
        "values": result.values if result.path is None else None,
    }


def of_errors(errors: pa.Table) -> list[Shape]:
    """Return the kinds of failure, the commonest first, with an example each."""
    shown = ("step", "source", "record", "message")
    return [
        {
            "count": group.count,
            "phase": group.phase,
            "error_type": group.error_type,
            "where": group.where or None,
            "example": {name: group.examples[0].get(name) for name in shown},
        }
        for group in FailureGroups.of(errors).commonest()
    ]


def of_flow(run: FlowRun) -> Shape:
    """Return what ``flow`` tells of a run."""
    return {
        "flow": run.name,
        "seconds": run.seconds,
        "counts": dict(run.counts),
        "steps": [_of_step(step) for step in run.steps],
        "errors": of_errors(run.errors) if run.errors.num_rows else [],
    }


def _of_step(step: StepRun) -> Shape:
    names = ("name", "state", "why", "attempts", "start", "end", "worker")
    return {name: getattr(step, name) for name in names} | {
        "report": None if step.report is None else step.report.as_dict(),
        "has_value": step.opened is not None,
        "value": None if step.opened is None else step.value,
    }


def of_graph(flow: Flow) -> Shape:
    """Return what ``flow --explain`` tells: which step takes what of which."""
    from batchflow.flows.steps import nodes_of

    nodes = nodes_of(flow.steps)

    def named(numbers: Iterable[int]) -> list[str]:
        return [nodes[number].name for number in numbers]

    steps = [
        {"name": one.name, "kind": one.kind, "needs": named(one.needs), "after": named(one.after)} for one in nodes
    ]
    return {"flow": flow.name, "steps": steps}


def of_proof(problems: list[str], notes: list[str], counts: Mapping[str, int] | None) -> Shape:
    """Return what ``verify`` tells."""
    names = ("rows_in", "rows_out", "failed", "uncounted", "damaged")
    told = {"ok": not problems, "problems": problems, "notes": notes}
    return told | {name: counts and counts[name] for name in names}


def of_job(job: JobInfo) -> Shape:
    """Return what is told of a job of a cluster."""
    return {name: getattr(job, name) for name in _JOB}


def of_error(error: BaseException) -> Shape:
    """Return what is told of a command that was refused or broke off; of one that was stopped, what was done."""
    told: Shape = {"error": {"type": type(error).__name__, "message": str(error)}}
    report = getattr(error, "report", None)
    if report is None:
        return told
    if hasattr(report, "as_dict"):
        return told | {"report": report.as_dict(), "errors": of_errors(error.errors)}  # type: ignore[attr-defined]
    return told | of_flow(report)


OK, FAILED, USAGE, STOPPED, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_STATUS = {
    OK: "all ok",
    FAILED: "done, and some records or steps failed; or the run itself failed",
    USAGE: "wrong usage or plan; nothing has run",
    STOPPED: "stopped: over --max-errors, no record succeeds, or --setup fails",
    INTERRUPTED: "interrupted",
}
"""What each means, in the help and in docs/command-line.md."""


def print_error(message: str, status: int) -> int:
    """Tell why nothing more comes, and return the exit status."""
    lines = message.splitlines() if status == FAILED else [message]  # a traceback may follow
    show_messages(map(printable, ["batchflow: " + lines[0], *lines[1:]]))
    return status


_output: list[TextIO | None] = []
"""The stream for results, while a command runs."""


def print_lines(lines: Iterable[object]) -> None:
    """Print lines of a result to standard output, as long as it is read.

    Raises
    ------
    OutputError
        If standard output is closed, or cannot be written to.
    """
    from batchflow.errors import OutputError

    output = _output[-1] if _output else sys.stdout
    if output is None:
        raise OutputError(_CLOSED)
    try:
        _write(lines, output)
    except (OSError, ValueError) as error:  # a full disk; a terminal that is gone; a stream that was closed
        message = f"cannot write to standard output: {getattr(error, 'strerror', None) or error}"
        raise OutputError(message) from error


_CLOSED = "standard output is closed"


def show_messages(lines: Iterable[object]) -> None:
    """Print lines to standard error, if there is one; what becomes of them changes no result."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            _write(lines, sys.stderr)


def _write(lines: Iterable[object], stream: TextIO) -> None:
    try:
        for line in lines:
            print(line, file=stream)
        stream.flush()
    except BrokenPipeError:  # the reader has all that it wants
        _discard(stream)
    except (OSError, ValueError):
        _discard(stream)
        raise


def show_values(values: Iterable[Any]) -> None:
    """Print values as JSON Lines; where that fails they are kept in a file, which the error names.

    Raises
    ------
    OutputError
        As `show` does.
    """
    from batchflow.errors import OutputError

    values = list(values)
    try:
        print_lines(json_lines(values))
    except OutputError as error:
        if not values:
            return
        path = _kept(values)
        message = f"{error}; the values are in {path}"
        raise OutputError(message) from error


def _kept(values: list[Any]) -> str:
    import tempfile

    with tempfile.NamedTemporaryFile(
        "w", prefix="batchflow-", suffix=".jsonl", encoding="utf-8", delete=False
    ) as file:
        file.writelines(f"{line}\n" for line in json_lines(values))
    return file.name


def check_output() -> None:
    """Refuse a command whose result has nowhere to go.

    Raises
    ------
    UsageError
        If standard output is closed.
    """
    if _output and _output[-1] is None:
        from batchflow.errors import UsageError

        message = f"{_CLOSED}, and the values would go there: add --into FOLDER"
        raise UsageError(message)


def _discard(stream: TextIO) -> None:
    """Send what a stream still holds to nowhere: else Python complains of it when it exits."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


@contextmanager
def own_output() -> Iterator[None]:
    """Keep standard output for the result of a command, unless a person reads it.

    What functions, worker processes, their children and C code print meanwhile goes to standard error.
    """
    stream = sys.stdout
    for each in (stream, sys.stderr):
        if isinstance(each, io.TextIOWrapper):
            each.reconfigure(errors="backslashreplace")
    if stream is None or _is_terminal(stream):
        _output.append(stream)
        try:
            yield
        finally:
            _output.pop()
        return
    with suppress(OSError, ValueError):
        stream.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    _output.append(_copy(stream, saved))
    try:
        with redirect_stdout(_Aside()):
            yield
    finally:
        _output.pop()
        os.dup2(saved, 1)
        os.close(saved)


class _Aside(io.TextIOBase):
    """Standard output of the user's code while results have the real one: standard error, if it takes any."""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if sys.stderr is not None:
            with suppress(OSError, ValueError):
                sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        if sys.stderr is not None:
            with suppress(OSError, ValueError):
                sys.stderr.flush()

    def fileno(self) -> int:
        return 2


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # it was closed
        return False


def _copy(stream: TextIO, descriptor: int) -> TextIO:
    """Return a stream that writes to a copy of descriptor 1; a stream of Python's own stays as it is."""
    try:
        if stream.fileno() != 1:
            return stream
    except (OSError, ValueError):
        return stream
    return open(descriptor, "w", encoding=stream.encoding, errors="backslashreplace", closefd=False)


def open_standard_descriptors() -> None:
    """Open the null device where a standard stream was closed: a file of the output would get its number."""
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            return
        os.set_inheritable(descriptor, True)


def finish_output() -> None:
    """Write out what is left of standard output, so that Python need not complain of it when it exits."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except (OSError, ValueError):
            _discard(sys.stdout)


def set_json_result(arguments: Namespace, status: int, shape: Mapping[str, Any]) -> int:
    """Note what a machine is told of a command once it has ended, and return its exit status."""
    arguments.told = {"command": arguments.verb, "exit_status": status, **shape}
    return status


def json_lines(values: Iterable[Any]) -> Iterator[str]:
    """Yield values as JSON Lines, as ``--format jsonl`` writes them.

    They are valid as UTF-8 whatever the encoding of standard output is: in any other one, letters are escaped.
    """
    output = _output[-1] if _output else None
    encoding = getattr(output, "encoding", None) or "utf-8"
    is_utf8 = encoding.lower().replace("-", "").replace("_", "") == "utf8"
    for value in values:
        text = printable_json(_json(value))
        yield text if is_utf8 or text.isascii() else ascii_json(text)


def _json(value: Any) -> str:
    import msgspec

    try:
        return msgspec.json.encode(value, enc_hook=_plain).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        pass  # lone surrogates, or keys that are no text
    try:
        return json.dumps(value, default=_plain)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return json.dumps(repr(value))  # of one that holds itself


def _plain(value: Any) -> Any:
    """Return a value that JSON does not know as one that it knows: numbers, rows of tables, else text."""
    if hasattr(value, "num_rows") and hasattr(value, "to_pylist"):
        return value.to_pylist()
    return value.item() if type(value).__module__ == "numpy" and not getattr(value, "shape", True) else str(value)


def grouped(errors: Any) -> str:
    """Return the kinds of failure, the commonest first, with a count and an example each."""
    return "\n".join(map(str, FailureGroups.of(errors).kinds()))


def told_row(row: dict[str, Any]) -> str:
    """Return a row of the error table as text, with its traceback."""
    record = f", record {row['record']}" if row["record"] is not None else ""
    stop = "" if row["stop"] is None else row["stop"]
    place = f"{printable(row['source'])}{record} [{row['start']}:{stop}]"
    tries = row["attempts"]
    head = f"{place} {row['phase']}, {tries} attempt{'s' if tries != 1 else ''}"
    payload = f"\n    {printable(row['payload'])}" if row["payload"] else ""
    trace = "".join(f"    {printable(line)}\n" for line in (row["traceback"] or "").splitlines())
    return f"{head}\n    {printable(row['error_type'])}: {printable(row['message'])}{payload}\n{trace}"
