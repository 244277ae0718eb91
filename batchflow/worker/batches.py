"""A task that calls the function with tables of some records."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from batchflow.model import Failed, Failure, Phase, Span, Task
from batchflow.sources.base import Block
from batchflow.tables import as_table, concat, is_tabular
from batchflow.worker.failures import failed, of_record
from batchflow.worker.outlets import WriteError
from batchflow.worker.program import Program
from batchflow.worker.run import PASSING, Run

if TYPE_CHECKING:
    import pyarrow as pa

    from batchflow.worker.caller import Gate

BATCH_BYTES = 64_000_000
"""Bytes of a table that a batch function gets, at most by one block; larger chunks are several calls."""
FEW = 64
"""Records among which the worker itself looks for those at fault; of more the scheduler makes halves, that others
may help. So a mistake that every record meets costs a call or two for each, and no task."""


class _Refusal(NamedTuple):
    """Why a table could not be taken through."""

    phase: Phase
    error: BaseException


class _Found(NamedTuple):
    """A failure, and the span that its number counts in."""

    span: Span
    failure: Failure


class BatchRun(Run):
    """Calls the function once for each table of some records."""

    def __init__(self, program: Program, task: Task, extra: tuple[Any, ...]) -> None:
        super().__init__(program, task, extra)
        self._gate: Gate | None = None
        if program.bucket is not None:
            from batchflow.worker.caller import Gate  # with asyncio, 40 ms

            self._gate = Gate(program.bucket)

    def work(self) -> Failed | None:
        """Gather blocks into tables, call, and take over what comes back."""
        gathered: list[Block] = []
        size = 0
        for block in self.blocks:
            gathered.append(block)
            size += block.nbytes or sys.getsizeof(block.rows)
            if size >= BATCH_BYTES:
                problem = self._take(gathered)
                if problem is not None:
                    return problem
                gathered, size = [], 0
        return self._take(gathered)

    def _take(self, blocks: Sequence[Block]) -> Failed | None:
        """Call the function with the records of some blocks; return why the chunk failed, if it did."""
        filled = [block for block in blocks if len(block.rows)]
        refusal = self._call(filled) if filled else None
        if refusal is not None:
            found: list[_Found] = []
            refusal = self._isolate(filled, refusal, found) if _records(filled) <= FEW else refusal
            self._place(blocks, found)
        return refusal and failed(self.task, refusal.phase, refusal.error, retry=self.program.retry)

    def _isolate(
        self, blocks: Sequence[Block], refusal: _Refusal, found: list[_Found], tries: int = 1
    ) -> _Refusal | None:
        """Call the function with halves, and halves of them, of what it refused, until those at fault are alone.

        Parameters
        ----------
        found
            Takes them.

        Returns
        -------
        _Refusal or None
            Why the chunk fails as a whole nevertheless: the job wants it so, or another try may help it.
        """
        if not self.program.isolates or self.program.retry.again(refusal.error, self.task.attempt):
            return refusal
        if _records(blocks) == 1:
            (block,) = blocks
            bad = of_record(block, 0, refusal.phase, refusal.error, tries)
            found.append(_Found(block.span, bad._replace(row=self.rows)))
            self.add(block, 0, 1)
            return None
        for half in _halves(blocks):
            self.retries += 1
            problem = self._call(half)
            problem = problem and self._isolate(half, problem, found, tries + 1)
            if problem is not None:
                return problem
        return None

    def _place(self, blocks: Sequence[Block], found: Sequence[_Found]) -> None:
        """Put failures of calls between those of reading the same blocks, in input order."""
        unread = [block.span for block in blocks for _ in block.failures]
        first = len(self.failures) - len(unread)
        places = {id(block.span): at for at, block in enumerate(blocks)}
        both = [*map(_Found, unread, self.failures[first:]), *found]
        both.sort(key=lambda one: (places[id(one.span)], one.failure.record or 0))
        rows = accumulate((one.failure.row for one in both), max)
        self.failures[first:] = [one.failure._replace(row=row) for one, row in zip(both, rows, strict=True)]

    def _table(self, blocks: Sequence[Block]) -> pa.Table:
        source = self.program.source
        return concat(block.rows if is_tabular(block.rows) else source.table(block.rows) for block in blocks)

    def _call(self, blocks: Sequence[Block]) -> _Refusal | None:
        """Call the function with one table and take over what it gives; return why that cannot be, if so."""
        phase: Phase = "convert"
        try:
            table = self._table(blocks)
            self.clock.lap("convert")
            phase = "call"
            if self._gate is not None:
                self._gate.enter(time.sleep)
            result = self.program.fn(table, *self.extra, **self.program.args)
            self.clock.lap("call")
            if result is None:
                return None
            phase = "convert"
            given = as_table(result)
            self.outlet.add(given)
        except (WriteError, *PASSING):
            raise
        except BaseException as error:  # noqa: BLE001 - a refusal is a value
            if self._gate is not None:
                self._gate.heed(error)
            self.clock.lap(phase)
            return _Refusal(phase, error)
        self.add(blocks[0], given.num_rows, 0)
        self.clock.lap("convert")
        return None


def _records(blocks: Sequence[Block]) -> int:
    return sum(len(block.rows) for block in blocks)


def _halves(blocks: Sequence[Block]) -> tuple[list[Block], list[Block]]:
    """Return the records of blocks in two halves."""
    halves: tuple[list[Block], list[Block]] = [], []
    left = _records(blocks) // 2
    for block in blocks:
        cut = min(left, len(block.rows))
        left -= cut
        for half, part in zip(halves, (slice(cut), slice(cut, None)), strict=True):
            rows = block.rows[part]
            if len(rows):
                half.append(replace(block, rows=rows, numbers=block.numbers[part]))
    return halves
