"""Task that calls the function with tables of records."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from batchflow.core.outcomes import Failed, Phase
from batchflow.core.work import Task
from batchflow.io.arrow.convert import as_table, is_tabular
from batchflow.io.arrow.schema import concat
from batchflow.io.sources.base import Block
from batchflow.worker import hints
from batchflow.worker.failures import failed, forget, of_record
from batchflow.worker.program import Program
from batchflow.worker.sinks import WriteError
from batchflow.worker.task import PASSING, JobState, TaskRun

if TYPE_CHECKING:
    import pyarrow as pa

    from batchflow.worker.invocation import RateGate

BATCH_BYTES = 8_000_000
"""Soft limit on the bytes of one batch, exceeded by at most one block; larger chunks take several calls."""
FEW = 64
"""Records up to which the worker isolates failing records itself. Larger chunks are halved by the scheduler, so
that other workers share the work. An error on every record costs a call or two for each, but no extra task.
"""


class _Refusal(NamedTuple):
    """Error of a batch, with the phase in which it occurred."""

    phase: Phase
    error: BaseException


class BatchTask(TaskRun):
    """Task that calls the function once per table of records."""

    def __init__(
        self, program: Program, task: Task, extra: tuple[Any, ...], state: JobState | None = None
    ) -> None:
        super().__init__(program, task, extra, state)
        self._gate: RateGate | None = None
        if program.bucket is not None:
            from batchflow.worker.invocation import RateGate  # imports asyncio, 40 ms

            self._gate = RateGate(program.bucket)

    def work(self) -> Failed | None:
        """Group blocks into tables, call the function and store the results."""
        for blocks in self._batches():
            filled = [block for block in blocks if len(block.rows)]
            first = len(self.failures) - len(blocks[0].failures)
            refusal = self._call(filled) if filled else None
            if refusal is not None and _records(filled) <= FEW:
                refusal = self._isolate(filled, refusal)
                self.failures[first:] = sorted(self.failures[first:], key=lambda bad: bad.record or 0)
            if refusal is not None:
                return failed(self.task, refusal.phase, refusal.error, retry=self.program.retry)
        return None

    def _batches(self) -> Iterator[list[Block]]:
        """Yield the blocks of each call; a block with failures is called alone, to keep its failures in order."""
        if self.tallies is not None:
            for block in self.blocks:
                yield from ([part] for part in self._neighbours(block))
            return
        gathered: list[Block] = []
        size = 0
        for block in self.blocks:
            size += block.nbytes or sys.getsizeof(block.rows)
            if block.failures and gathered:
                unread = self.failures[-len(block.failures) :]
                del self.failures[-len(block.failures) :]
                yield gathered
                gathered = []
                self.failures.extend(bad._replace(row=self.rows) for bad in unread)
            gathered.append(block)
            if block.failures or size >= BATCH_BYTES:
                yield gathered
                gathered, size = [], 0
        if gathered:
            yield gathered

    def _neighbours(self, block: Block) -> Iterator[Block]:
        """Yield the selected records of a block in runs that are adjacent in the input, as their rows must be."""
        only = block.span.only or ()
        numbers = [only[number + self.task.chunk.skip] for number in block.numbers]
        starts = [at for at in range(1, len(numbers)) if numbers[at] != numbers[at - 1] + 1]
        for start, stop in pairwise([0, *starts, len(numbers)]):
            failures = () if start else block.failures
            rows, kept = block.rows[start:stop], block.numbers[start:stop]
            yield block._replace(rows=rows, numbers=kept, failures=failures)

    def _isolate(self, blocks: Sequence[Block], refusal: _Refusal, tries: int = 1) -> _Refusal | None:
        """Bisect a failing batch until the records at fault are alone.

        Returns
        -------
        _Refusal or None
            Reason why the chunk still fails as a whole: the job does not isolate, a retry may help, or too little
            time is left in this task.
        """
        if not self.program.isolates or self.program.retry.again(refusal.error, self.task.attempt):
            return refusal
        if _records(blocks) == 1:
            (block,) = blocks
            told = (refusal.phase, refusal.error, tries, hints.of_batch, self.state.tracebacks.of)
            bad = of_record(block, 0, block.record(0), *told)
            self.failures.append(bad._replace(row=self.rows))
            self.add(block, 0, 1)
            return None
        if self._is_late():
            return refusal
        forget(refusal.error)
        for half in _halves(blocks):
            self.retries += 1
            problem = self._call(half)
            problem = problem and self._isolate(half, problem, tries + 1)
            if problem is not None:
                return problem
        return None

    def _is_late(self) -> bool:
        """Whether calls are rate-limited or half of the time limit has passed, as each call may take as long."""
        limit = self.program.timeout
        return self._gate is not None or (limit is not None and time.time() - self.started > limit / 2)

    def _table(self, blocks: Sequence[Block]) -> pa.Table:
        source = self.program.source
        return concat(block.rows if is_tabular(block.rows) else source.table(block.rows) for block in blocks)

    def _call(self, blocks: Sequence[Block]) -> _Refusal | None:
        """Call the function with one table and store its result; return the error, if any."""
        phase: Phase = "convert"
        try:
            table = self._table(blocks)
            self.clock.lap("convert")
            phase = "call"
            if self._gate is not None:
                self._gate.enter(time.sleep)
            try:
                result = self.program.fn(table, *self.extra, **self.program.args)
            finally:
                self.end_fork()
            self.clock.lap("call")
            if result is None:
                return None
            phase = "convert"
            given = as_table(result)
            self.outlet.add(given)
        except (WriteError, *PASSING):
            raise
        except BaseException as error:
            if self._gate is not None:
                self._gate.heed(error)
            self.clock.lap(phase)
            return _Refusal(phase, error)
        self.add(blocks[0], given.num_rows, 0)
        self.tally(blocks[0], [0], given.num_rows)
        self.clock.lap("convert")
        return None


def _records(blocks: Sequence[Block]) -> int:
    return sum(len(block.rows) for block in blocks)


def _halves(blocks: Sequence[Block]) -> tuple[list[Block], list[Block]]:
    """Split the records of blocks into two halves."""
    halves: tuple[list[Block], list[Block]] = [], []
    left = _records(blocks) // 2
    for block in blocks:
        cut = min(left, len(block.rows))
        left -= cut
        for half, part in zip(halves, (slice(cut), slice(cut, None)), strict=True):
            rows = block.rows[part]
            if len(rows):
                half.append(block._replace(rows=rows, numbers=block.numbers[part]))
    return halves
