"""What the commands tell: lines to a stream, failures in groups or whole, values as JSON; the exit status."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

from batchflow.grouping import ErrorGroups
from batchflow.printable import printable, printable_json

OK, FAILED, USAGE, STOPPED, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_STATUS = {
    OK: "all ok",
    FAILED: "done, and some records or steps failed; or the run itself failed",
    USAGE: "wrong usage or plan; nothing has run",
    STOPPED: "stopped: over --max-errors, no record succeeds, or --setup fails",
    INTERRUPTED: "interrupted",
}
"""What each means, in the help and in docs/command-line.md."""


def fail(message: str, status: int) -> int:
    """Tell why nothing more comes, and return the exit status."""
    lines = message.splitlines() if status == FAILED else [message]  # a traceback may follow
    show(map(printable, ["batchflow: " + lines[0], *lines[1:]]), sys.stderr)
    return status


def show(lines: Iterable[object], stream: TextIO) -> None:
    """Print lines, as long as somebody reads them."""
    try:
        for line in lines:
            print(line, file=stream)
        stream.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what is still to be flushed goes nowhere


def tell(arguments: Namespace, status: int, shape: Mapping[str, Any]) -> int:
    """Note what a machine is told of a command once it has ended, and return its exit status."""
    arguments.told = {"command": arguments.verb, "exit_status": status, **shape}
    return status


@contextmanager
def kept_for_json() -> Iterator[None]:
    """Have all that is printed go to standard error, by worker processes too: the output is one object."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def json_lines(values: Iterable[Any]) -> Iterator[str]:
    """Yield values as JSON Lines, as ``--format jsonl`` writes them."""
    import msgspec

    for value in values:
        yield printable_json(msgspec.json.encode(value, enc_hook=_plain).decode())


def _plain(value: Any) -> Any:
    """Return a value that JSON does not know as one that it knows: numbers, rows of tables, else text."""
    if hasattr(value, "num_rows") and hasattr(value, "to_pylist"):
        return value.to_pylist()
    return value.item() if type(value).__module__ == "numpy" and not getattr(value, "shape", True) else str(value)


def grouped(errors: Any) -> str:
    """Return the kinds of failure, the commonest first, with a count and an example each."""
    return "\n".join(map(str, ErrorGroups.of(errors).kinds()))


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
