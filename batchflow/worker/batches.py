"""A task that calls the function with tables of some records."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from batchflow.model import Failed, Phase, Task
from batchflow.sources.base import Block
from batchflow.tables import as_table, concat, is_tabular
from batchflow.worker.failures import failed
from batchflow.worker.outlets import WriteError
from batchflow.worker.program import Program
from batchflow.worker.run import PASSING, Run

if TYPE_CHECKING:
    import pyarrow as pa

    from batchflow.worker.caller import Gate

BATCH_BYTES = 64_000_000
"""Bytes of a table that a batch function gets, at most by one block; larger chunks are several calls."""


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
            if len(block.rows):
                gathered.append(block)
                size += block.nbytes or sys.getsizeof(block.rows)
            if size >= BATCH_BYTES:
                problem = self._call(gathered)
                if problem is not None:
                    return problem
                gathered, size = [], 0
        return self._call(gathered) if gathered else None

    def _table(self, blocks: Sequence[Block]) -> pa.Table:
        source = self.program.source
        return concat(block.rows if is_tabular(block.rows) else source.table(block.rows) for block in blocks)

    def _call(self, blocks: Sequence[Block]) -> Failed | None:
        """Call the function with one table; return why the chunk failed, if it did."""
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
        except BaseException as error:  # noqa: BLE001 - the chunk's failure is a value
            if self._gate is not None:
                self._gate.heed(error)
            return failed(self.task, phase, error, retry=self.program.retry)
        self.add(blocks[0], given.num_rows, 0)
        self.clock.lap("convert")
        return None
