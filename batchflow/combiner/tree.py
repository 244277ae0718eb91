"""Tree reduction for ``combine=``: workers merge neighbouring tables into a smaller one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from batchflow.core.chunks import Key
from batchflow.core.outcomes import Failed, Outcome
from batchflow.core.text import printable
from batchflow.core.work import CombineTables, WorkItem
from batchflow.errors import BatchflowError

ARITY = 8
"""Tables per merge."""
_LEVEL = 1 << 40
"""First key of merges, above those of chunks."""


class ReductionTree:
    """Merges payloads level by level: eight neighbours of a level become one of the next.

    Parameters
    ----------
    delegate
        Has a piece of work done on the executor and calls back with its outcome.
    """

    def __init__(self, delegate: Callable[[WorkItem, Callable[[Outcome], None]], None]) -> None:
        self._delegate = delegate
        self._levels: list[list[_Node]] = [[]]
        self._made = 0
        self._finishing = False

    def add(self, payload: Any, nbytes: int) -> None:
        """Add the next table, in input order."""
        self._append(0, _Node(payload, nbytes))

    def nbytes(self) -> int:
        """Return the bytes of the tables not yet merged."""
        return sum(node.nbytes for level in self._levels for node in level)

    def _append(self, level: int, node: _Node) -> None:
        if level == len(self._levels):
            self._levels.append([])
        self._levels[level].append(node)
        self._merge_full(level)

    def _merge_full(self, level: int) -> None:
        nodes = self._levels[level]
        while len(nodes) >= ARITY and all(node.ready for node in nodes[:ARITY]):
            merged, nodes[:ARITY] = nodes[:ARITY], []
            self._merge(merged, level + 1)

    def _merge(self, nodes: list[_Node], level: int) -> None:
        target = _Node(None, 0, ready=False)
        self._made += 1
        key: Key = (_LEVEL, self._made)

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, Failed):
                failure = outcome.failure
                told = f"combine= failed: {failure.error_type}: {failure.message}\n{failure.traceback}"
                raise BatchflowError("\n".join(map(printable, told.splitlines())))
            target.payload, target.nbytes, target.ready = outcome.payload, outcome.stats.held, True
            self._merge_full(level)

        self._append(level, target)
        self._delegate(CombineTables(key, tuple(node.payload for node in nodes)), done)

    def finish(self) -> bool:
        """Merge the remaining tables bottom up; false while a merge is running."""
        nodes = [node for level in reversed(self._levels) for node in level]
        if not all(node.ready for node in nodes):
            return False
        if len(nodes) > 1 or (nodes and not self._finishing):
            # Deeper levels hold earlier input, so this is input order.
            self._finishing = True
            self._levels = [[]]
            self._merge(nodes, 0)
            return False
        return True

    @property
    def payload(self) -> Any:
        """Remaining payload, or ``None`` if there was no input."""
        nodes = [node for level in self._levels for node in level]
        return nodes[0].payload if nodes else None


class _Node:
    """Table of the tree, finished or pending."""

    __slots__ = ("nbytes", "payload", "ready")

    def __init__(self, payload: Any, nbytes: int, *, ready: bool = True) -> None:
        self.payload = payload
        self.nbytes = nbytes
        self.ready = ready
