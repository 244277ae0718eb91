"""Failures that are alike: how many there are of each kind, and a few examples, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from batchflow.printable import printable

if TYPE_CHECKING:
    import pyarrow as pa

COUNTED = 1000
"""Groups that are told apart: a type of exception can be made anew for each record."""
SHOWN = 50
"""Of these that have examples;"""
EXAMPLES = 3
"""at most so many each."""
_LETTERS = 200
"""Of a message that stands in a line."""
_KEPT = {"payload": 300, "message": 500, "traceback": 4000}
"""Characters of texts that may be long."""
_COLUMNS = (
    "step", "source", "start", "stop", "record", "payload", "message", "traceback", "attempts", "worker",
)  # fmt: skip


class ErrorKind(NamedTuple):
    """Failures in one phase, of one type of error."""

    phase: str
    error_type: str
    rows: int
    """Of the error table."""
    example: str
    """Source, record and message of the first one."""

    def __str__(self) -> str:
        return f"{self.rows:>7,} x {printable(self.error_type)} in {self.phase}: {printable(self.example)}"


class ErrorGroups:
    """Groups failures by phase, type and the line of code that raised."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], int] = {}
        self._firsts: dict[tuple[str, str, str], str] = {}
        self._examples: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        self._rows = 0

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take over rows of an error table."""
        for row in rows:
            self._rows += 1
            key = (row["phase"], row["error_type"], raised_at(row["traceback"]))
            if key not in self._counts:
                if len(self._counts) == COUNTED:
                    continue
                self._firsts[key] = example(row["source"], row["record"], row["message"])
                if len(self._examples) < SHOWN:
                    self._examples[key] = []
            self._counts[key] = self._counts.get(key, 0) + 1
            examples = self._examples.get(key)
            if examples is not None and len(examples) < EXAMPLES:
                examples.append({name: _cut(name, row[name]) for name in _COLUMNS if name in row})

    def kinds(self) -> list[ErrorKind]:
        """Return those that differ in phase or type, the commonest first; of equally common ones the earlier."""
        kinds: dict[tuple[str, str], ErrorKind] = {}
        for (phase, error_type, where), count in self._counts.items():
            first = ErrorKind(phase, error_type, 0, self._firsts[phase, error_type, where])
            kind = kinds.get((phase, error_type), first)
            kinds[phase, error_type] = kind._replace(rows=kind.rows + count)
        return sorted(kinds.values(), key=lambda kind: -kind.rows)

    def told(self) -> dict[str, Any]:
        """Return the groups that have examples as plain values, the commonest first, and how many are in none."""
        order = sorted(self._examples, key=lambda key: -self._counts[key])
        return {
            "groups": [
                {"phase": phase, "error_type": kind, "where": where, "count": self._counts[phase, kind, where],
                 "examples": self._examples[phase, kind, where]}
                for phase, kind, where in order
            ],
            "others": self._rows - sum(self._counts[key] for key in order),
        }  # fmt: skip


def by_kind(errors: pa.Table) -> list[tuple[int, dict[str, Any]]]:
    """Return how many rows there are of each kind, the commonest first, and the first row of it."""
    counts: Counter[tuple[str, str, str]] = Counter()
    firsts: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in errors.drop_columns(["payload", "traceback"]).to_pylist():
        kind = (row.get("step", ""), row["phase"], row["error_type"])
        counts[kind] += 1
        firsts.setdefault(kind, row)
    return [(count, firsts[kind]) for kind, count in counts.most_common()]


def kinds_of(errors: pa.Table) -> list[ErrorKind]:
    """Return the kinds of failure in an error table, of a job or of a flow, the commonest first."""
    return [ErrorKind(row["phase"], row["error_type"], count, _placed(row)) for count, row in by_kind(errors)]


def _placed(row: Mapping[str, Any]) -> str:
    """Return a row of an error table in one line, with the step that it is of unless that is its source."""
    step = f"{row['step']}: " if row.get("step", row["source"]) != row["source"] else ""
    return step + example(row["source"], row["record"], row["message"])


def example(source: str, record: int | None, message: str) -> str:
    """Return in one line what failed, and how."""
    number = "" if record is None else f", record {record}"
    short = message if len(message) <= _LETTERS else f"{message[: _LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"
    return f"{source}{number}: {short}"


def raised_at(traceback: str | None) -> str:
    """Return the place in the last line that a traceback names, as ``steps.py:12 in clean``."""
    place = ""
    for line in (traceback or "").splitlines():
        words = line.strip()
        if words.startswith('File "') and '", line ' in words:
            file, _, rest = words[6:].partition('", line ')
            number, _, function = rest.partition(", in ")
            place = f"{file.rpartition('/')[2]}:{number}{function and f' in {function}'}"
    return place


def _cut(name: str, cell: Any) -> Any:
    room = _KEPT.get(name)
    if room is None or not isinstance(cell, str) or len(cell) <= room:
        return cell
    if name == "traceback":  # the end tells most
        return f"\N{HORIZONTAL ELLIPSIS}\n{cell[-room:]}"
    return f"{cell[:room]}\N{HORIZONTAL ELLIPSIS}"
