"""One task on its way: read block after block, call the function, convert."""

from __future__ import annotations

import os
import resource
import sys
import time
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, groupby, repeat
from operator import itemgetter
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from batchflow.errors import SchemaError
from batchflow.model import Failed, Failure, Outcome, Phase, SpanCount, Stats, Succeeded, Task
from batchflow.rows import Rows
from batchflow.sources.base import Block
from batchflow.tables import as_table, concat, is_tabular, table_to_rows, values_to_table
from batchflow.worker.failures import failed, of_record, placed, worker_name
from batchflow.worker.guard import Overtime
from batchflow.worker.outlets import WriteError, outlet_of
from batchflow.worker.program import Program

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_BYTES = 64_000_000
"""Bytes of a table that a batch function gets, at most by one block; larger chunks are several calls."""

PASSING = (KeyboardInterrupt, Overtime, MemoryError)
"""What ends a task as a whole: the user at the keyboard of a driver, and the limits of a task."""


class _ReadAgainError(Exception):
    """A chunk that could not be read to its end, but perhaps the next time; the cause says why."""


def peak_memory() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes everywhere else


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


class _Run(ABC):
    """One task on its way: counts, failures, clock and output."""

    def __init__(self, program: Program, task: Task, extra: tuple[Any, ...]) -> None:
        self.program = program
        self.task = task
        self.extra = extra
        self.clock = _Clock()
        self.started = time.time()
        self.failures: list[Failure] = []
        self.counts: dict[int, SpanCount] = {}
        self.rows = 0
        self.retries = 0
        self.nbytes = 0
        self.outlet = outlet_of(program)
        self.outlet.schema = task.schema
        self._last: Block | None = None
        self._blocks = self._read()

    def outcome(self) -> Outcome:
        """Run the task to its end; what cannot be kept as a whole fails as a whole, and is halved."""
        problem: Failed | None = None
        payload: Any = None
        try:
            problem = self.work()
            payload = None if problem else self._payload()
        except WriteError as error:
            cause = error.__cause__ or error
            problem = failed(self.task, "write", cause, retry=self.program.retry)
            if isinstance(cause, OSError):
                self.outlet.drop()  # room, too, for what is written when the run stops
                return problem._replace(unwritten=True)
        except _ReadAgainError as error:
            self.outlet.drop()
            return failed(self.task, "read", error.__cause__ or error, retry=self.program.retry)
        except PASSING:
            self.outlet.drop()
            raise
        except BaseException as error:  # noqa: BLE001 - of combine=, the only other thing that may raise
            problem = failed(self.task, "call", error, retry=self.program.retry)
        if problem is None:
            held = payload.nbytes if isinstance(payload, Rows) else 0
            return Succeeded(self.task.key, self.stats()._replace(held=held), tuple(self.failures), payload)
        return self._whole(problem)

    @abstractmethod
    def work(self) -> Failed | None:
        """Go through all blocks; return why the task fails as a whole, if it does."""

    def _payload(self) -> Any:
        """Return the rows, combined with the function of the job if it has one."""
        payload: Any = self.outlet.close()
        self.clock.lap("write")
        if self.program.combine is not None and payload.tables:
            payload = Rows([as_table(self.program.combine(concat(payload.tables)))])
            self.clock.lap("call")
        return payload

    def _whole(self, problem: Failed) -> Failed:
        """Return the failure of the whole task, with the number of its records, or the place of its only one."""
        self.outlet.drop()
        for _ in self._blocks:
            pass  # halving needs to know how many records there are
        stats = self.stats()
        records = sum(count.positions for count in stats.spans)
        if records == 1 and self._last is not None:
            problem = placed(problem, self._last, 0)
        return problem._replace(records=records, stats=stats)

    def _read(self) -> Iterator[Block]:
        """Yield the blocks of the chunk, taking down what could not be read."""
        blocks = self.program.source.read(self.task.chunk, self.task.data)
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
        """Give the task up where its input broke off, but another try may find it whole."""
        retry = self.program.retry
        if block.error is not None and self.task.attempt < retry.attempts and retry.helps(block.error):
            raise _ReadAgainError from block.error

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
        self.rows += rows
        at = id(block.span)
        count = self.counts[at]
        self.counts[at] = SpanCount(
            count.uri, count.positions, count.rows_in, count.rows_out + rows, count.failed + bad
        )

    def fail(self, block: Block, at: int, phase: Phase, error: BaseException, attempts: int = 1) -> None:
        """Take down the failure of one record of a block."""
        self.failures.append(of_record(block, at, phase, error, attempts))

    def stats(self) -> Stats:
        """Return what the task did so far."""
        spent = self.clock.spent
        return Stats(
            worker_name(),
            self.started,
            time.time() - self.started,
            spent["read"], spent["call"], spent["convert"], spent["write"],
            self.nbytes,
            peak_memory=peak_memory(),
            spans=tuple(self.counts.values()),
            retries=self.retries,
        )  # fmt: skip


class RecordRun(_Run):
    """Calls the function once for each record."""

    def work(self) -> None:
        """Run block after block: read, call, convert."""
        for block in self._blocks:
            first = len(self.failures) - len(block.failures)
            before = self.rows
            rows = table_to_rows(block.rows) if is_tabular(block.rows) else block.rows
            values, owners = self._call(block, rows)
            self.clock.lap("call")
            if values:
                owners = self._convert(block, values, owners)
                self.clock.lap("convert")
            if len(self.failures) > first:
                self._place(block, first, before, owners)

    def _place(self, block: Block, first: int, before: int, owners: Sequence[int]) -> None:
        """Note for each failure of a block how many rows stand before it, and put them in input order.

        Parameters
        ----------
        first
            Place of the first of them among all failures.
        before
            Rows before the block.
        owners
            Records that the rows of the block came from, in order.
        """
        kept = [block.numbers[at] for at in owners]
        self.failures[first:] = sorted(
            (bad._replace(row=before + bisect_left(kept, bad.record or 0)) for bad in self.failures[first:]),
            key=lambda bad: bad.record or 0,
        )

    def _call(self, block: Block, rows: Sequence[Any]) -> tuple[list[Any], Sequence[int]]:
        """Return what the function gave back, and which record each value came from."""
        results: list[Any] = []
        done: list[range] = []
        refused: dict[int, BaseException] = {}
        at = 0
        left = iter(rows)
        while at < len(rows):
            before = len(results)
            error = _extend(results, self._calls(left))
            done.append(range(at, at + len(results) - before))
            at = done[-1].stop
            if at < len(rows):
                refused[at] = error or _NO_VALUE
                at += 1
        owners: Sequence[int] = done[0] if len(done) == 1 else list(chain(*done))
        values, owners = _spread(results, owners, refused)
        if not refused:
            return values, owners
        given = self._again(block, rows, refused)
        pairs = [*zip(owners, values, strict=True), *((at, value) for at in given for value in given[at])]
        pairs.sort(key=itemgetter(0))
        return [value for _, value in pairs], [at for at, _ in pairs]

    def _again(
        self, block: Block, rows: Sequence[Any], refused: dict[int, BaseException]
    ) -> dict[int, list[Any]]:
        """Try the records of a block once more for which the function raised, as often as the job allows.

        Returns what it gave for some of them; the others fail.
        """
        retry = self.program.retry
        given: dict[int, list[Any]] = {}
        tried = dict.fromkeys(refused, 1)
        for attempt in range(1, retry.attempts):
            hopeful = [at for at, error in refused.items() if retry.helps(error)]
            if not hopeful:
                break
            time.sleep(retry.delay(attempt))
            self.retries += len(hopeful)
            for at in hopeful:
                tried[at] += 1
                results: list[Any] = []
                error = _extend(results, self._calls(iter(rows[at : at + 1])))
                del refused[at]
                if error is not None or not results:
                    refused[at] = error or _NO_VALUE
                else:
                    given[at], _ = _spread(results, [at], refused)
        for at in sorted(refused):
            self.fail(block, at, "call", refused[at], tried[at])
        self.add(block, 0, len(refused))
        return given

    def _calls(self, left: Iterator[Any]) -> Iterator[Any]:
        """Return the calls of the records left; at the speed of `map`, which makes no frame for each."""
        fn = self.program.fn
        if self.program.args:
            fn = partial(fn, **self.program.args)
        return map(fn, left, *map(repeat, self.extra))

    def _convert(self, block: Block, values: list[Any], owners: Sequence[int]) -> Sequence[int]:
        """Hand what the function gave back to the output; returns the records whose rows it took."""
        try:
            self.outlet.take(values)
        except (WriteError, *PASSING):
            raise
        except BaseException as error:  # noqa: BLE001 - Arrow raises many kinds, and so do the user's values
            return self._one_by_one(block, values, owners, error)
        self.add(block, len(values), 0)
        return owners

    def _one_by_one(
        self, block: Block, values: list[Any], owners: Sequence[int], reason: BaseException
    ) -> Sequence[int]:
        """Keep the values that fit, whole records only, and fail the others; returns whose were kept."""
        bad = self._misfits(values, owners)
        good = [value for at, value in zip(owners, values, strict=True) if at not in bad]
        try:
            self._take_fitting(good)
        except (WriteError, *PASSING):
            raise
        except BaseException:  # noqa: BLE001 - they fit one by one but not together
            bad, good = dict.fromkeys(owners, reason), []
        for at, error in bad.items():
            self.fail(block, at, "convert", error)
        self.add(block, len(good), len(bad))
        return [at for at in owners if at not in bad]

    def _misfits(self, values: list[Any], owners: Sequence[int]) -> dict[int, BaseException]:
        """Return the records whose values do not go with those before them, and why."""
        bad: dict[int, BaseException] = {}
        schema = self.outlet.schema
        for at, pairs in groupby(zip(owners, values, strict=True), key=itemgetter(0)):
            grown = schema
            try:
                for _, value in pairs:
                    grown = self.outlet.fit(grown, values_to_table([value]), "this record")
                schema = grown
            except PASSING:
                raise
            except BaseException as misfit:  # noqa: BLE001 - Arrow raises many kinds, and so do values
                bad[at] = misfit  # what fitted of it says nothing to the records behind it
        return bad

    def _take_fitting(self, values: list[Any]) -> None:
        """Hand over values that fit one by one."""
        if not values:
            return
        try:
            self.outlet.take(values)
        except SchemaError:  # what Arrow finds no type for at once may be united: 2**63 - 1 and a decimal
            self.outlet.add(concat(values_to_table([value]) for value in values))


_NO_VALUE = RuntimeError("the function raised StopIteration")


def _spread(
    results: list[Any], owners: Sequence[int], refused: dict[int, BaseException]
) -> tuple[list[Any], Sequence[int]]:
    """Drop ``None`` and let generators give their many rows; those that raise are added to the refused."""
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
        given: list[Any] = []
        error = _extend(given, result)
        if error is not None:
            refused[at] = error
            continue
        kept = [value for value in given if value is not None]
        values.extend(kept)
        sources.extend([at] * len(kept))
    return values, sources


def _extend(results: list[Any], calls: Iterator[Any]) -> BaseException | None:
    """Add results until one raises; those before it are kept, so their number tells which it was."""
    try:
        results.extend(calls)
    except PASSING:
        raise
    except BaseException as error:  # noqa: BLE001 - the record's failure is a value
        return error
    return None


def _is_iterator(kind: type) -> bool:
    return issubclass(kind, GeneratorType) or (hasattr(kind, "__next__") and not hasattr(kind, "read"))


class BatchRun(_Run):
    """Calls the function once for each table of some records."""

    def work(self) -> Failed | None:
        """Gather blocks into tables, call, and take over what comes back."""
        gathered: list[Block] = []
        size = 0
        for block in self._blocks:
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
            return failed(self.task, phase, error, retry=self.program.retry)
        self.add(blocks[0], given.num_rows, 0)
        self.clock.lap("convert")
        return None
