"""Failures that are alike, counted, with a few examples of each; a listener in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from batchflow.events import ChunkSettled, Event

GROUPS = 50
"""Kinds of failure that are told apart; those beyond are only counted."""
EXAMPLES = 3
_KEPT = {"payload": 300, "message": 500, "traceback": 4000}
"""Characters of texts that may be long."""
_COLUMNS = (
    "step", "source", "start", "stop", "record", "payload", "message", "traceback", "attempts", "worker",
)  # fmt: skip


class ErrorGroups:
    """Groups failures by phase, type and the line of code that raised."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        self._counts: dict[tuple[str, str, str], int] = {}
        self._others = 0

    def __call__(self, event: Event) -> None:
        """Hear one event."""
        if isinstance(event, ChunkSettled) and event.failures:
            self.add(failure._asdict() for failure in event.failures)

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take over rows of an error table."""
        for row in rows:
            key = (row["phase"], row["error_type"], raised_at(row["traceback"]))
            if key not in self._groups and len(self._groups) >= GROUPS:
                self._others += 1
                continue
            self._counts[key] = self._counts.get(key, 0) + 1
            examples = self._groups.setdefault(key, [])
            if len(examples) < EXAMPLES:
                examples.append({name: _cut(name, row[name]) for name in _COLUMNS if name in row})

    def told(self) -> dict[str, Any]:
        """Return the groups as plain values, the commonest first."""
        order = sorted(self._groups, key=lambda key: -self._counts[key])
        return {
            "groups": [
                {"phase": phase, "error_type": kind, "where": where, "count": self._counts[phase, kind, where],
                 "examples": self._groups[phase, kind, where]}
                for phase, kind, where in order
            ],
            "others": self._others,
        }  # fmt: skip


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
