"""Failures by kind: how many there are of each, and one as an example."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from batchflow.model import Failure
from batchflow.printable import printable

if TYPE_CHECKING:
    import pyarrow as pa

_KINDS = 1000
"""Kinds that are told apart: a type of exception can be made anew for each record."""
_LETTERS = 200
"""Of a message that stands as an example."""


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


class ErrorKinds:
    """Counts failures by kind, in the order in which they are told."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._examples: dict[tuple[str, str], str] = {}

    def add(self, failures: Iterable[Failure]) -> None:
        """Count some failures."""
        for failure in failures:
            kind = (failure.phase, failure.error_type)
            if kind not in self._counts:
                if len(self._counts) == _KINDS:
                    continue
                self._examples[kind] = example(failure.source, failure.record, failure.message)
            self._counts[kind] = self._counts.get(kind, 0) + 1

    def __len__(self) -> int:
        return len(self._counts)

    def commonest(self, most: int) -> tuple[ErrorKind, ...]:
        """Return the commonest kinds; of equally common ones the earlier first."""
        kinds = heapq.nlargest(most, self._counts.items(), key=lambda item: item[1])
        return tuple(ErrorKind(*kind, count, self._examples[kind]) for kind, count in kinds)


def by_kind(errors: pa.Table) -> list[tuple[int, dict[str, Any]]]:
    """Return how many rows there are of each kind, the commonest first, and the first row of it."""
    counts: Counter[tuple[str, str]] = Counter()
    firsts: dict[tuple[str, str], dict[str, Any]] = {}
    for row in errors.drop_columns(["payload", "traceback"]).to_pylist():
        kind = (row["phase"], row["error_type"])
        counts[kind] += 1
        firsts.setdefault(kind, row)
    return [(count, firsts[kind]) for kind, count in counts.most_common()]


def example(source: str, record: int | None, message: str) -> str:
    """Return in one line what failed, and how."""
    number = "" if record is None else f", record {record}"
    short = message if len(message) <= _LETTERS else f"{message[: _LETTERS - 1]}\N{HORIZONTAL ELLIPSIS}"
    return f"{source}{number}: {short}"
