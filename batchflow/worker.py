"""All code that runs where the data is: read a chunk, call the function, convert, write.

Nothing here raises to the executor: whatever goes wrong becomes a failure, of a record where one is
at fault, of the chunk where not.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from types import GeneratorType
from typing import TYPE_CHECKING, Any, Literal

from batchflow.errors import SchemaError, WorkerDied
from batchflow.formats import format_of
from batchflow.model import (
    Assemble,
    Failed,
    Failure,
    Inspect,
    Merge,
    Outcome,
    Phase,
    Piece,
    SpanCount,
    Stats,
    Succeeded,
    Task,
    Work,
)
from batchflow.sources.base import Block, Source, explain, show
from batchflow.tables import Rows, as_table, concat, is_tabular, table_to_rows, unify, values_to_table

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_BYTES = 64_000_000
"""Bytes of a table that a batch function gets, at most by one block; larger chunks are several calls."""
PIECE_BYTES = 64_000_000
"""Bytes of Arrow rows that a worker gathers before it writes them."""
_HERE = str(Path(__file__).parent)
_NOTHING = object()


@dataclass(frozen=True)
class Program:
    """What a worker needs to know of a job; shipped once to each."""

    fn: Callable[..., Any]
    source: Source
    per: Literal["record", "batch"] = "record"
    setup: Callable[[], Any] | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    combine: Callable[[Any], Any] | None = None
    format: str | None = None
    """Output format; ``None``: rows go back to the driver."""
    pieces: str = ""
    """Folder for pieces."""
    folder: str = ""
    """Working directory of the driver: what relative paths of inputs start from."""


def worker_name() -> str:
    """Return what names this process in reports: host and process number."""
    return f"{socket.gethostname()}:{os.getpid()}"


def peak_memory() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes everywhere else


class Runner:
    """Runs the work of one job in one process."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._state: Any = _NOTHING

    def perform(self, work: Work) -> Outcome:
        """Do one piece of work and return what came of it; never raises an `Exception`."""
        try:
            if isinstance(work, Task):
                return self._task(work)
            if isinstance(work, Inspect):
                return self._inspect(work.task)
            return self._assemble(work) if isinstance(work, Assemble) else self._merge(work)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a failure is a value
            phase: Phase = "call" if isinstance(work, Merge) else "write"
            return failed(work, phase if not isinstance(work, Task) else "worker", error)

    def _prepare(self) -> tuple[Any, ...]:
        """Return what follows the record in each call: the value of ``setup=``, made once."""
        if self._program.setup is None:
            return ()
        if self._state is _NOTHING:
            self._state = self._program.setup()
        return (self._state,)

    def _task(self, task: Task) -> Outcome:
        program = self._program
        extra = self._prepare()
        run = _RecordRun(program, task, extra) if program.per == "record" else _BatchRun(program, task, extra)
        return run.outcome()

    def _assemble(self, work: Assemble) -> Outcome:
        writer = format_of(self._program.format or "parquet")
        if work.restate:
            writer.restate(work.pieces[0].path, work.schema, work.path)
        else:
            writer.assemble(work.pieces, work.schema, work.path)
        return Succeeded(work.key, Stats(worker_name()), (), os.stat(work.path).st_size)  # noqa: PTH116

    def _inspect(self, task: Task) -> Outcome:
        """Count the numbers of a chunk, and place its record if it is but one."""
        ends: dict[int, int] = {}
        found: list[tuple[Block, int]] = []
        for block in self._program.source.read(task.chunk, task.data):
            ends[id(block.span)] = block.end
            found = (found + [(block, at) for at in range(min(2, len(block.numbers)))])[:2]
        outcome = failed(task, "worker", WorkerDied(""), sum(ends.values()))
        return _placed(outcome, *found[0]) if len(found) == 1 else outcome

    def _merge(self, work: Merge) -> Outcome:
        assert self._program.combine is not None
        table = concat(table for part in work.parts for table in part.tables)
        return Succeeded(work.key, Stats(worker_name()), (), Rows([as_table(self._program.combine(table))]))


def failed(work: Work, phase: Phase, error: BaseException, records: int | None = None) -> Failed:
    """Return the outcome of work that gave nothing back."""
    task = work.task if isinstance(work, Inspect) else work
    span = task.chunk.spans[0] if isinstance(task, Task) else None
    failure = Failure(
        span.input.uri if span else "",
        span.start if span else None,
        span.stop if span else None,
        None,
        None,
        phase,
        type(error).__name__,
        explain(error),
        user_traceback(error),
        worker=worker_name(),
    )
    return Failed(work.key, failure, records)


def user_traceback(error: BaseException) -> str:
    """Return a traceback of the user's frames only, without those of batchflow."""
    summary = traceback.TracebackException.from_exception(error, limit=-50)
    summary.stack = traceback.StackSummary.from_list(
        [frame for frame in summary.stack if not frame.filename.startswith(_HERE)]
    )
    return "".join(summary.format()) if summary.stack else ""


class _Clock:
    """Seconds spent in each phase, one after the other."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {"read": 0.0, "call": 0.0, "convert": 0.0, "write": 0.0}
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """Count the time since the last lap to a phase."""
        now = time.perf_counter()
        self.spent[phase] += now - self._last
        self._last = now


class _Run:
    """One task on its way: counts, failures, clock and output."""

    def __init__(self, program: Program, task: Task, extra: tuple[Any, ...]) -> None:
        self.program = program
        self.task = task
        self.extra = extra
        self.clock = _Clock()
        self.started = time.time()
        self.failures: list[Failure] = []
        self.counts: dict[int, SpanCount] = {}
        self.nbytes = 0
        self.sink = _Sink(program) if program.format else _Memory()

    def outcome(self) -> Outcome:
        """Run the task to its end."""
        raise AssertionError  # each kind of run has its own

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks of the chunk, taking down what could not be read."""
        blocks = self.program.source.read(self.task.chunk, self.task.data)
        while True:
            self._go_home()
            block = next(blocks, None)
            self.clock.lap("read")
            if block is None:
                return
            self.nbytes += block.nbytes
            self.failures.extend(block.failures)
            self.count(block)
            yield block

    def _go_home(self) -> None:
        """Read from the driver's directory, wherever the function went; another machine may not have it."""
        if self.program.folder:
            with suppress(OSError):
                os.chdir(self.program.folder)

    def count(self, block: Block) -> None:
        """Add the records of a block to the count of its span."""
        at = id(block.span)
        before = self.counts.get(at) or SpanCount(block.span.input.uri)
        bad = len(block.failures)
        self.counts[at] = SpanCount(
            before.uri,
            block.end,
            before.rows_in + len(block.numbers) + bad,
            before.rows_out,
            before.failed + bad,
        )

    def add(self, block: Block, rows: int, bad: int) -> None:
        """Add rows given back and records that failed to the count of a block's span."""
        at = id(block.span)
        count = self.counts[at]
        self.counts[at] = SpanCount(
            count.uri, count.positions, count.rows_in, count.rows_out + rows, count.failed + bad
        )

    def fail(self, block: Block, at: int, phase: Phase, error: BaseException) -> None:
        """Take down the failure of one record of a block."""
        number = block.numbers[at]
        self.failures.append(
            Failure(
                block.span.input.uri,
                *block.locate(number),
                number,
                show(_row(block, at)),
                phase,
                type(error).__name__,
                explain(error),
                user_traceback(error),
            )
        )

    def stats(self) -> Stats:
        """Return what the task did so far."""
        spent = self.clock.spent
        return Stats(
            worker_name(),
            self.started,
            time.time() - self.started,
            nbytes=self.nbytes,
            peak_memory=peak_memory(),
            spans=tuple(self.counts.values()),
            **spent,
        )

    def finish(self) -> Outcome:
        """Close the output, combined with the function of the job if it has one, and return the outcome."""
        payload: Any = self.sink.close()
        self.clock.lap("write")
        if self.program.combine is not None:
            try:
                payload = Rows([as_table(self.program.combine(concat(payload.tables)))])
            except (Exception, SystemExit) as error:  # noqa: BLE001 - the chunk's failure is a value
                return failed(self.task, "call", error)
            self.clock.lap("call")
        return Succeeded(self.task.key, self.stats(), tuple(self.failures), payload)


def _row(block: Block, at: int) -> Any:
    """Return one record of a block."""
    return table_to_rows(block.rows.slice(at, 1))[0] if is_tabular(block.rows) else block.rows[at]


class _RecordRun(_Run):
    """Calls the function once for each record."""

    def outcome(self) -> Outcome:
        """Run block after block: read, call, convert."""
        for block in self.blocks():
            rows = table_to_rows(block.rows) if is_tabular(block.rows) else block.rows
            values, owners = self._call(block, rows)
            self.clock.lap("call")
            if values:
                self._convert(block, values, owners)
                self.clock.lap("convert")
                self.sink.flush(PIECE_BYTES)
                self.clock.lap("write")
        return self.finish()

    def _call(self, block: Block, rows: Sequence[Any]) -> tuple[list[Any], Sequence[int]]:
        """Return what the function gave back, and which record each value came from."""
        results: list[Any] = []
        done: list[range] = []
        at = 0
        while at < len(rows):
            before = len(results)
            error = _extend(results, self._calls(rows, at))
            done.append(range(at, at + len(results) - before))
            at = done[-1].stop
            if at < len(rows):
                self.fail(block, at, "call", error or RuntimeError("the function raised StopIteration"))
                self.add(block, 0, 1)
                at += 1
        return self._spread(block, results, done[0] if len(done) == 1 else list(chain(*done)))

    def _calls(self, rows: Sequence[Any], at: int) -> Iterator[Any]:
        """Return the calls of the records from one on; at the speed of `map`, which makes no frame for each."""
        program = self.program
        rest = rows[at:] if at else rows
        if program.args:
            return map(partial(program.fn, **program.args), rest, *map(repeat, self.extra))
        return map(program.fn, rest, *map(repeat, self.extra))

    def _spread(
        self, block: Block, results: list[Any], owners: Sequence[int]
    ) -> tuple[list[Any], Sequence[int]]:
        """Drop ``None`` and let generators give their many rows."""
        kinds = set(map(type, results))
        lazy = {kind for kind in kinds if _is_iterator(kind)}
        if not lazy and type(None) not in kinds:
            return results, owners
        values: list[Any] = []
        sources: list[int] = []
        for at, result in zip(owners, results, strict=True):
            if result is None:
                continue
            if type(result) not in lazy:
                values.append(result)
                sources.append(at)
                continue
            try:
                given = [value for value in result if value is not None]
            except (Exception, SystemExit) as error:  # noqa: BLE001 - the record's failure is a value
                self.fail(block, at, "call", error)
                self.add(block, 0, 1)
                continue
            values.extend(given)
            sources.extend([at] * len(given))
        return values, sources

    def _convert(self, block: Block, values: list[Any], owners: Sequence[int]) -> None:
        """Turn what the function gave back into Arrow, and hand it to the output."""
        try:
            self.sink.add(values_to_table(values), None)
            self.add(block, len(values), 0)
            return
        except Exception as error:  # noqa: BLE001 - Arrow raises many kinds
            reason = error
        if self.sink.takes_objects:
            self.sink.add(None, values)
            self.add(block, len(values), 0)
            return
        self._one_by_one(block, values, owners, reason)

    def _one_by_one(
        self, block: Block, values: list[Any], owners: Sequence[int], reason: Exception
    ) -> None:
        """Keep the values that fit, whole records only, and fail the others."""
        bad: dict[int, BaseException] = {}
        schema = self.sink.schema
        for at, value in zip(owners, values, strict=True):
            try:
                schema = unify(schema, values_to_table([value]).schema, "this record")
            except Exception as misfit:  # noqa: BLE001 - Arrow raises many kinds
                bad.setdefault(at, misfit)
        good = [value for at, value in zip(owners, values, strict=True) if at not in bad]
        try:
            if good:
                self.sink.add(values_to_table(good), None)
        except Exception:  # noqa: BLE001 - they fit one by one but not together
            bad, good = dict.fromkeys(owners, reason), []
        for at, error in bad.items():
            self.fail(block, at, "convert", error)
        self.add(block, len(good), len(bad))


def _extend(results: list[Any], calls: Iterator[Any]) -> BaseException | None:
    """Add results until one raises; those before it are kept, so their number tells which it was."""
    try:
        results.extend(calls)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the record's failure is a value
        return error
    return None


def _is_iterator(kind: type) -> bool:
    return issubclass(kind, GeneratorType) or (hasattr(kind, "__next__") and not hasattr(kind, "read"))


class _BatchRun(_Run):
    """Calls the function once for each table of some records."""

    def outcome(self) -> Outcome:
        """Gather blocks into tables, call, and take over what comes back."""
        gathered: list[Block] = []
        size = 0
        problem = None
        for block in self.blocks():
            if problem is not None:
                continue  # go on reading: halving needs to know how many records there are
            if len(block.rows):
                gathered.append(block)
                size += block.nbytes or sys.getsizeof(block.rows)
            if size >= BATCH_BYTES:
                problem = self._call(gathered)
                gathered, size = [], 0
        if gathered and problem is None:
            problem = self._call(gathered)
        return self.finish() if problem is None else self._whole_chunk(problem)

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
            result = self.program.fn(table, *self.extra, **self.program.args)
            self.clock.lap("call")
            if result is None:
                return None
            phase = "convert"
            given = as_table(result)
            self.sink.add(given, None)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the chunk's failure is a value
            outcome = failed(self.task, phase, error)
            alone = len(blocks) == 1 and len(blocks[0].numbers) == 1
            return _placed(outcome, blocks[0], 0) if alone else outcome
        self.add(blocks[0], given.num_rows, 0)
        self.clock.lap("convert")
        self.sink.flush(PIECE_BYTES)
        self.clock.lap("write")
        return None

    def _whole_chunk(self, problem: Failed) -> Failed:
        self.sink.drop()
        stats = self.stats()
        return problem._replace(records=sum(count.positions for count in stats.spans), stats=stats)


def _placed(outcome: Failed, block: Block, at: int) -> Failed:
    """Return a failure with the place of the one record that it is about."""
    number = block.numbers[at]
    start, stop = block.locate(number)
    failure = outcome.failure._replace(source=block.span.input.uri,
        start=start,
        stop=stop,
        record=number,
        payload=show(_row(block, at)),
    )
    return outcome._replace(failure=failure)


class _Memory:
    """Rows on their way back to the driver."""

    takes_objects = True

    def __init__(self) -> None:
        self.schema: pa.Schema | None = None
        self._segments: list[Any] = []
        self._tables: list[pa.Table] = []

    def add(self, table: pa.Table | None, objects: list[Any] | None) -> None:
        """Take over a table, or values that no table can hold."""
        if table is None:
            self._join()
            self._segments.append(objects)
            return
        try:
            self.schema = unify(self.schema, table.schema)
        except SchemaError:
            self._join()
            self.schema = table.schema
        self._tables.append(table)

    def _join(self) -> None:
        if self._tables:
            joined = concat(self._tables)
            self._segments.append(joined.combine_chunks() if len(self._tables) > 1 else joined)
            self._tables = []

    def flush(self, limit: int) -> None:
        """Keep everything: it goes back as a whole."""

    def close(self) -> Rows:
        """Return all rows."""
        self._join()
        return Rows(self._segments)

    def drop(self) -> None:
        """Forget all rows."""


class _Sink:
    """Rows on their way to disk, as one or some pieces."""

    takes_objects = False

    def __init__(self, program: Program) -> None:
        self.schema: pa.Schema | None = None
        self._format = format_of(program.format or "")
        self._folder = program.pieces
        self._tables: list[pa.Table] = []
        self._held = 0
        self._pieces: list[Piece] = []

    def add(self, table: pa.Table | None, objects: list[Any] | None) -> None:
        """Take over a table; raises `SchemaError` where it does not go with those before."""
        del objects
        assert table is not None
        self.schema = unify(self.schema, table.schema)
        self._tables.append(table)
        self._held += table.nbytes

    def flush(self, limit: int) -> None:
        """Write what is held once it is more than a limit."""
        if self._held > limit:
            self._write()

    def _write(self) -> None:
        table = concat(self._tables).replace_schema_metadata(None)  # pandas' would make schemas differ
        self._tables, self._held = [], 0
        if table.num_rows == 0:
            return
        path = f"{self._folder}/{uuid.uuid4().hex}{self._format.piece_suffix}"
        self._format.write_piece(table.combine_chunks(), path)
        size = os.stat(path).st_size  # noqa: PTH116
        self._pieces.append(Piece(path, table.num_rows, size, table.schema))

    def close(self) -> list[Piece]:
        """Write the rest and return all pieces."""
        self._write()
        return self._pieces

    def drop(self) -> None:
        """Remove the pieces written so far."""
        for piece in self._pieces:
            Path(piece.path).unlink(missing_ok=True)
