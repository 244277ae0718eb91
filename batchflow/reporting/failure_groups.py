"""Groups of similar failures with counts and examples, in bounded memory."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from batchflow.core.outcomes import Failure, Failures
from batchflow.core.text import printable

if TYPE_CHECKING:
    import pyarrow as pa

COUNTED = 1000
"""Maximum number of groups, since a type of exception can be created for each record."""
SHOWN = 50
"""Maximum number of groups with whole examples."""
EXAMPLES = 3
"""Maximum number of examples per group."""
WORDINGS = 8
"""Maximum number of distinct messages per line of code."""
_LETTERS = 200
"""Maximum length of a message in a line."""
_VALUES = re.compile(r"""'[^']*'|"[^"]*"|\d+""")
"""Values that differ between similar messages."""
_BATCH = 10_000
"""Rows of an error table converted to Python objects at once."""
_KEPT = {"payload": 300, "message": 500, "traceback": 4000}
"""Maximum length of long text fields."""
_COLUMNS = (
    "step",
    "source",
    "start",
    "stop",
    "record",
    "payload",
    "message",
    "traceback",
    "attempts",
    "worker",
)
_TELLING = ("phase", "error_type", "traceback", "message")
"""Columns that determine the group of a row, after its step."""
_FEW = ("step", "source", "start", "stop", "record", "message")


class ErrorKind(NamedTuple):
    """Similar failures in one phase and of one error type."""

    phase: str
    error_type: str
    rows: int
    """Number of rows in the error table."""
    example: str
    """Source, record and message of the first failure."""

    def __str__(self) -> str:
        return f"{self.rows:>7,} x {printable(self.error_type)} in {self.phase}: {printable(self.example)}"


@dataclass(slots=True)
class ErrorGroup:
    """Failures of one step, phase, error type, location and wording."""

    phase: str
    error_type: str
    where: str
    """Place in the user's code, as `raised_at` names it; empty if it is not known."""
    count: int
    examples: list[dict[str, Any]]
    """The first rows of the error table, one at least, with texts cut short."""

    @property
    def breaks_off(self) -> bool:
        """Whether they are of files that could not be read completely."""
        first = self.examples[0]
        return self.phase == "read" and first["start"] is not None and first["stop"] is None


class FailureGroups:
    """Groups failures that are alike: one mistake in the code or in the inputs each, as far as can be told."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, ...], ErrorGroup] = {}
        self._wordings: Counter[tuple[str, ...]] = Counter()
        self._places: dict[tuple[str, ...], str] = {}
        """Line of the last traceback of each phase and type, and of each wording of these."""
        self._last: tuple[Any, ...] | None = None
        self._full: ErrorGroup | None = None
        """Group of the last row, if it has all its examples: thousands of rows in a row are alike."""
        self._alike: dict[tuple[str, ...], ErrorGroup] = {}
        """Groups, with all their examples, of rows without traceback: by step, phase, type and wording."""
        self._rows = 0

    @classmethod
    def of(cls, errors: pa.Table) -> FailureGroups:
        """Return the groups of an error table, of a job or of a flow."""
        groups = cls()
        for batch in errors.to_batches(max_chunksize=_BATCH):
            groups._add_batch(batch)
        return groups

    def add_failures(self, failures: Sequence[Failure]) -> None:
        """Add failures of a job."""
        columns = Failures.of(failures)
        told = [columns.column(name) for name in _TELLING]
        self._add_columns(repeat(""), told, lambda index: columns[index]._asdict())

    def _add_batch(self, batch: pa.RecordBatch) -> None:
        steps: Iterable[Any] = batch.column("step").to_pylist() if "step" in batch.schema.names else repeat("")
        columns = [batch.column(name).to_pylist() for name in _TELLING]
        self._add_columns(steps, columns, lambda index: batch.slice(index, 1).to_pylist()[0])

    def _add_columns(
        self,
        steps: Iterable[str],
        columns: Iterable[Iterable[Any]],
        row_at: Callable[[int], Mapping[str, Any]],
    ) -> None:
        """Count rows of an error table. Only those that become examples are created as a whole."""
        for index, same in enumerate(zip(steps, *columns, strict=False)):  # steps may have no end
            self._rows += 1
            if same == self._last and self._full is not None:
                self._full.count += 1
                continue
            *what, traceback, message = self._last = same
            wording = _VALUES.sub("#", message[:_LETTERS])
            alike = (*what, wording)
            full = None if traceback else self._alike.get(alike)
            if full is not None:
                full.count += 1
            else:
                where = self._place_of(tuple(what), wording, traceback)
                full = self._add(row_at, index, tuple(what), wording, where)
                if traceback:
                    self._alike.clear()  # the place of rows without one may be another one now
                elif full is not None and len(self._alike) < COUNTED:
                    self._alike[alike] = full
            self._full = full

    def _place_of(self, what: tuple[str, ...], wording: str, traceback: str) -> str:
        """Return the line that raised a failure."""
        if not traceback:  # of many failures of a kind only the first ones have one
            return self._places.get((*what, wording)) or self._places.get(what, "")
        where = self._places[what] = raised_at(traceback)
        if len(self._places) < COUNTED:
            self._places[(*what, wording)] = where
        return where

    def _add(
        self,
        row_at: Callable[[int], Mapping[str, Any]],
        index: int,
        what: tuple[str, ...],
        wording: str,
        where: str,
    ) -> ErrorGroup | None:
        """Count a failure in its group; returns the group if it has all its examples."""
        full = None
        place = (*what, where)
        key = (*place, wording)
        if key not in self._groups and where and self._wordings[place] >= WORDINGS:
            key = (*place, "")  # one mistake, told with something else of each record
        group = self._groups.get(key)
        if group is None:
            self._wordings[place] += 1
            if len(self._groups) == COUNTED:
                return None
            group = self._groups[key] = ErrorGroup(what[1], what[2], where, 0, [])
            kept = _COLUMNS if len(self._groups) <= SHOWN else _FEW
            group.examples.append(_cut(row_at(index), kept))
        elif len(group.examples) < EXAMPLES and "traceback" in group.examples[0]:
            group.examples.append(_cut(row_at(index), _COLUMNS))
        else:
            full = group
        group.count += 1
        return full

    def commonest(self) -> list[ErrorGroup]:
        """Return the groups, files that broke off first, as nobody knows how much is lost.

        Then the commonest, and of equally common ones the earlier.
        """
        return sorted(self._groups.values(), key=lambda group: (not group.breaks_off, -group.count))

    def kinds(self) -> list[ErrorKind]:
        """Return each group in one line, the commonest first."""
        groups = self.commonest()
        return [ErrorKind(one.phase, one.error_type, one.count, _placed(one.examples[0])) for one in groups]

    def told(self) -> dict[str, Any]:
        """Return the commonest groups as plain values, and how many failures are in none of them."""
        groups = [asdict(group) for group in self.commonest()[:SHOWN]]
        return {"groups": groups, "others": self._rows - sum(group["count"] for group in groups)}


def _placed(row: Mapping[str, Any]) -> str:
    """Return a row of an error table in one line, with the step that it is of unless that is its source."""
    step = f"{row['step']}: " if row.get("step", row["source"]) != row["source"] else ""
    number = "" if row["record"] is None else f", record {row['record']}"
    message = row["message"]
    short = message if len(message) <= _LETTERS else f"{message[: _LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"
    return f"{step}{row['source']}{number}: {short}"


def raised_at(traceback: str | None) -> str:
    """Return the place in the last line that a traceback names, as ``steps.py:12 in clean``."""
    text = traceback or ""
    at = text.rfind('  File "') + 8
    return _line_name(text[at:].partition("\n")[0]) if at > 7 else ""


@lru_cache(256)
def _line_name(line: str) -> str:
    """Return the name of a line from how a traceback tells of it."""
    file, found, rest = line.partition('", line ')
    if not found:
        return ""
    number, _, function = rest.partition(", in ")
    return f"{file.rpartition('/')[2]}:{number}{function and f' in {function}'}"


def _cut(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return some cells of a row, with long texts cut short."""
    return {name: _short(name, row[name]) for name in names if name in row}


def _short(name: str, cell: Any) -> Any:
    room = _KEPT.get(name)
    if room is None or not isinstance(cell, str) or len(cell) <= room:
        return cell
    if name == "traceback":  # the end tells most
        return f"\N{HORIZONTAL ELLIPSIS}\n{cell[-room:]}"
    return f"{cell[:room]}\N{HORIZONTAL ELLIPSIS}"
