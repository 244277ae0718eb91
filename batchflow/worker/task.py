"""Base class of tasks: read blocks, count records and report the outcome."""

from __future__ import annotations

import os
import resource
import sys
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from batchflow.core.outcomes import LEADING, Failed, Failure, Failures, Outcome, Phase, SpanCount, Stats, Succeeded
from batchflow.core.work import Task
from batchflow.io.arrow.convert import as_table, is_tabular, readable_rows, row_as_text
from batchflow.io.arrow.precision import annotated_schema
from batchflow.io.arrow.rows import Rows
from batchflow.io.arrow.schema import concat
from batchflow.io.sources.base import Block
from batchflow.io.sources.record_window import InputChangedError
from batchflow.worker.failures import TracebackCount, failed, of_record, placed, worker_name
from batchflow.worker.limits import TaskTimeout
from batchflow.worker.position import PositionCells
from batchflow.worker.program import Program
from batchflow.worker.sinks import Sink, WriteError, make_sink

PASSING = (KeyboardInterrupt, TaskTimeout, MemoryError)
"""Exceptions that end a task as a whole: Ctrl-C in the driver, and the limits of a task."""

WINDOW = 64
"""Neighbouring rows of a table that are converted to records together after a failure."""


class _ReadAgainError(Exception):
    """Incomplete read of a chunk that may succeed on a retry; the cause is the original error."""


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # in kilobytes on other systems


class Clock:
    """Time spent in each phase, in seconds."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {"read": 0.0, "call": 0.0, "convert": 0.0, "write": 0.0}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Add the time since the last lap to a phase."""
        now = time.perf_counter()
        self.spent[phase] += now - self._last
        self._last = now


class JobState:
    """State shared by the tasks of one job in one process."""

    def __init__(self, cells: memoryview | None = None) -> None:
        self.tracebacks: TracebackCount = TracebackCount()
        self.position: PositionCells = PositionCells(cells)


def tallies_of(task: Task) -> dict[int, array[int]] | None:
    """Return row counts for each span of a chunk with selected records; ``None`` for other chunks."""
    spans = task.chunk.spans
    if spans[0].only is None:
        return None
    return {id(span): array("q", [-1]) * len(span.only or ()) for span in spans}


class TaskRun(ABC):
    """Run of one task: counts, failures, clock and sink."""

    fine: ClassVar[bool] = False
    """Whether each record is released at once, so that small blocks are best."""

    def __init__(
        self, program: Program, task: Task, extra: tuple[Any, ...], state: JobState | None = None
    ) -> None:
        self.state: JobState = state or JobState()
        self.program = program
        self.task = task
        self.extra = extra
        self.clock: Clock = Clock()
        self.started: float = time.time()
        self._pid = os.getpid()
        self._computed = time.process_time()
        self.failures: list[Failure] = []
        self.counts: dict[int, SpanCount] = {}
        self.rows: int = 0
        self.retries = 0
        self.nbytes: int = 0
        self.outlet: Sink = make_sink(program)
        self.outlet.schema = task.schema
        self.suspect: bool = False
        """Whether calls of other tasks ran in the same event loop when it ended."""
        self._combining = False
        """Whether ``combine=`` has been called."""
        self._last: Block | None = None
        self._window: tuple[Any, int, list[Any]] = None, 0, []
        self._heads: list[tuple[str, Sequence[int], Sequence[Failure]]] = []
        """Input, record numbers and read failures of the first blocks."""
        self._headroom = LEADING
        """Number of leading records still to be tracked."""
        self.tallies: dict[int, array[int]] | None = tallies_of(task)
        """Rows from each selected record, by span; -1: not read."""
        self.blocks: Iterator[Block] = self._read()

    def end_fork(self) -> None:
        """End this process if the function forked it: only the original process may continue the task."""
        if os.getpid() != self._pid:
            os._exit(0)

    def resume(self) -> None:
        """Restart the clock when the turn of this run has come."""
        self.clock = Clock()
        self.started = time.time()
        self._computed = time.process_time()

    def outcome(self) -> Outcome:
        """Run the task; a result that cannot be stored fails the whole chunk, which is then halved."""
        problem: Failed | None = None
        payload: Any = None
        try:
            problem = self.work()
            payload = None if problem else self._payload()
        except WriteError as error:
            cause = error.__cause__ or error
            problem = failed(self.task, "write", cause, retry=self.program.retry)
            if isinstance(cause, OSError):
                self.outlet.drop()  # frees disk space for the final writes of the run
                return problem._replace(unwritten=True)
        except (_ReadAgainError, InputChangedError) as error:
            self.outlet.drop()
            return failed(self.task, "read", error.__cause__ or error, retry=self.program.retry)
        except PASSING:
            self.outlet.drop()
            raise
        except BaseException as error:
            problem = failed(self.task, "call", error, retry=self.program.retry)
            problem = problem._replace(suspect=self.suspect)
            if self._combining:
                message = f"combine= failed: {problem.failure.message}"
                problem = problem._replace(failure=problem.failure._replace(message=message))
        if problem is None:
            return self._succeeded(payload)
        return self._whole(problem)

    @abstractmethod
    def work(self) -> Failed | None:
        """Process all blocks; return the failure if the task fails as a whole."""

    def _payload(self) -> Any:
        """Return the rows, combined by ``combine=`` if the job has it."""
        payload: Any = self.outlet.close()
        self.clock.lap("write")
        if self.program.combine is not None and payload.tables:
            self._combining = True
            payload = Rows([as_table(self.program.combine(concat(payload.tables)))])
            self.clock.lap("call")
        return payload

    def _succeeded(self, payload: Any) -> Succeeded:
        stats = self.stats()
        failures = Failures.of(self.failures) if self.failures else ()
        if self.tallies is not None:  # selected records are processed only for written output
            return Succeeded(self.task.key, stats, failures, payload, tallies=tuple(self.tallies.values()))
        if not isinstance(payload, Rows):
            return Succeeded(self.task.key, stats, failures, payload)
        schemas: tuple[Any, ...] = ()
        if self.program.tables and self.outlet.schema is not None:
            schemas = (
                self.outlet.schema,
                *(annotated_schema(table) for table in payload.tables if self.program.combine),
            )
        return Succeeded(self.task.key, stats._replace(held=payload.nbytes), failures, payload, schemas)

    def _whole(self, problem: Failed) -> Failed:
        """Return the failure of the whole task, with its record count or the location of its only record."""
        self.outlet.drop()
        for _ in self.blocks:
            pass  # halving needs the record count
        stats = self.stats()
        records = sum(count.positions for count in stats.spans)
        if records == 1 and self._last is not None:
            problem = placed(problem, self._last, 0)
        return problem._replace(records=records, stats=stats)

    def _read(self) -> Iterator[Block]:
        """Yield the blocks of the chunk and record read failures."""
        blocks = self.program.source.read(self.task.chunk, self.task.data, fine=self.fine)
        while True:
            self._go_home()
            block = next(blocks, None)
            self.clock.lap("read")
            if block is None:
                return
            self._check_end(block)
            self.nbytes += block.nbytes
            self.failures.extend(bad._replace(row=self.rows) for bad in block.failures)
            self.count(block)
            if len(block.numbers):
                self._last = block
            yield block

    def _check_end(self, block: Block) -> None:
        """Raise if the input ended early but a retry may read it completely."""
        retry = self.program.retry
        if block.error is not None and self.task.attempt < retry.attempts and retry.helps(block.error):
            raise _ReadAgainError from block.error

    def _go_home(self) -> None:
        """Change to the driver's directory before each read, if it exists: the function may have changed it."""
        if self.program.folder:
            with suppress(OSError):
                os.chdir(self.program.folder)

    def count(self, block: Block) -> None:
        """Add the records of a block to the count of its span."""
        at = id(block.span)
        before = self.counts.get(at) or SpanCount(block.span.input.uri)
        bad = len(block.failures)
        if self._headroom > 0:
            self._headroom -= len(block.numbers) + bad
            self._heads.append((before.uri, block.numbers, block.failures))
        self.counts[at] = SpanCount(
            before.uri,
            block.end,
            before.rows_in + len(block.numbers) + bad,
            before.rows_out,
            before.failed + bad,
        )
        if self.tallies is not None:
            tally = self.tallies[at]
            for number in block.numbers:
                tally[number] = 0

    def tally(self, block: Block, owners: Sequence[int], rows: int = 1) -> None:
        """Count rows by selected record, if the chunk has selected records."""
        if self.tallies is not None:
            tally = self.tallies[id(block.span)]
            for at in owners:
                tally[block.numbers[at]] += rows

    def add(self, block: Block, rows: int, bad: int) -> None:
        """Add returned rows and failed records to the count of a block's span."""
        self.rows += rows
        at = id(block.span)
        count = self.counts[at]
        self.counts[at] = SpanCount(
            count.uri, count.positions, count.rows_in, count.rows_out + rows, count.failed + bad
        )

    def fail(self, block: Block, at: int, phase: Phase, error: BaseException, attempts: int = 1) -> None:
        """Record the failure of one record of a block."""
        traceback = self.state.tracebacks.of
        record = self.record(block, at)
        self.failures.append(of_record(block, at, record, phase, error, attempts, traceback=traceback))

    def record(self, block: Block, at: int) -> Any:
        """Return a record of a block as it was read; neighbouring rows of a table are converted together."""
        if not is_tabular(block.rows):
            return block.rows[at]
        table, first, rows = self._window
        if table is not block.rows or not first <= at < first + len(rows):
            first = at - at % WINDOW
            part = block.rows.slice(first, WINDOW)
            rows, refused = readable_rows(part)
            for index in refused:
                rows[index] = row_as_text(part, index)
            self._window = block.rows, first, rows
        return rows[at - first]

    def stats(self) -> Stats:
        """Return the statistics of the task so far."""
        spent = self.clock.spent
        return Stats(
            worker_name(),
            self.started,
            time.time() - self.started,
            spent["read"],
            spent["call"],
            spent["convert"],
            spent["write"],
            self.nbytes,
            peak_memory=peak_memory(),
            spans=tuple(self.counts.values()),
            retries=self.retries,
            cpu=time.process_time() - self._computed,
            leading=self._leading() if self.failures else 0,
        )

    def _leading(self) -> int:
        """Return the number of failed records before the first successful one."""
        failed = {(bad.source, bad.record) for bad in self.failures[:LEADING]}
        count = 0
        for uri, numbers, unread in self._heads:
            for number in sorted([*numbers, *(bad.record or 0 for bad in unread)]):
                if (uri, number) not in failed:
                    return count
                count += 1
        return count
