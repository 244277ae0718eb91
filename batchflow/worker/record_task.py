"""Task that calls the function once for each record."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from itertools import chain, count, groupby, repeat
from operator import gt, itemgetter
from sys import getrefcount
from types import GeneratorType
from typing import Any, ClassVar, NamedTuple

from batchflow.core.outcomes import Failure
from batchflow.errors import RetryAfter, SchemaError
from batchflow.io.arrow.arrays import kinds_of
from batchflow.io.arrow.convert import is_tabular, readable_rows, row_as_text, values_to_table
from batchflow.io.arrow.schema import concat
from batchflow.io.sources.base import Block, ReleasableRecords
from batchflow.worker.failures import of_record
from batchflow.worker.sinks import WriteError
from batchflow.worker.task import PASSING, TaskRun

CONVERTED_BYTES = 256_000
"""Bytes of one span whose rows are converted together: each table costs 0.1 ms regardless of its size."""


class _Given(NamedTuple):
    """Results of a block that are not yet converted."""

    block: Block
    values: list[Any]
    owners: Sequence[int]
    """Index of the record that each value came from, in order."""
    failures: list[Failure]


class RecordTask(TaskRun):
    """Task that calls the function once for each record."""

    fine: ClassVar[bool] = True
    _unwatched = 2
    """Results of the chunk to check for a function that refills one object for every record."""
    _refilled: Any = None
    """First result of the chunk, if the function still holds a reference to it."""
    _span = 0
    """Index in the chunk of the span that was read last."""

    def work(self) -> None:
        """Read block after block and call the function; convert results of several blocks together."""
        given: list[_Given] = []
        nbytes = 0
        for block in self.blocks:
            unread = self.unread(block)
            if given and block.span is not given[0].block.span:
                self._keep_all(given)
                given, nbytes = [], 0
            first = len(self.failures)
            block, rows = self.readable(block, unread)
            values, owners = self._call(block, rows)
            self.clock.lap("call")
            given.append(_Given(block, values, owners, unread + self.failures[first:]))
            del self.failures[first:]
            block.let_go()
            nbytes += block.nbytes
            if nbytes >= CONVERTED_BYTES or not isinstance(block.rows, ReleasableRecords):
                self._keep_all(given)
                given, nbytes = [], 0
        self._keep_all(given)

    def unread(self, block: Block) -> list[Failure]:
        """Remove and return the read failures of the last block, which are reported in its turn."""
        first = len(self.failures) - len(block.failures)
        unread = self.failures[first:]
        del self.failures[first:]
        return unread

    def readable(self, block: Block, unread: list[Failure]) -> tuple[Block, Sequence[Any]]:
        """Return a block and its records; values that Python cannot represent become read failures."""
        if not is_tabular(block.rows):
            return block, block.rows
        rows, refused = readable_rows(block.rows)
        if not refused:
            return block, rows
        unread += [
            of_record(block, at, row_as_text(block.rows, at), "read", error) for at, error in refused.items()
        ]
        self.add(block, 0, len(refused))
        kept = [at for at in range(len(rows)) if at not in refused]
        rows = [rows[at] for at in kept]
        return block._replace(rows=rows, numbers=[block.numbers[at] for at in kept]), rows

    def _keep_all(self, given: Sequence[_Given]) -> None:
        """Store the results of some blocks, together if possible and otherwise block by block."""
        together = len(given) > 1 and self._take([value for one in given for value in one.values])
        self.clock.lap("convert")
        for block, values, owners, failures in given:
            first, before = len(self.failures), self.rows
            self.failures.extend(failures)
            if not together:
                self.keep(block, values, owners, first, before)
                continue
            self.add(block, len(values), 0)
            self.tally(block, owners)
            if failures:
                self._place(block, first, before, owners)

    def _take(self, values: list[Any]) -> bool:
        """Pass values to the sink; return whether it accepted them."""
        try:
            if values:
                self.outlet.take(values)
        except (WriteError, *PASSING):
            raise
        except BaseException:
            return False
        return True

    def keep(self, block: Block, values: list[Any], owners: Sequence[int], first: int, before: int) -> None:
        """Store the results of a block and put its failures in input order.

        Parameters
        ----------
        owners, first, before
            As for `_place`.
        """
        if values:
            owners = self._convert(block, values, owners)
            self.tally(block, owners)
            self.clock.lap("convert")
        if len(self.failures) > first:
            self._place(block, first, before, owners)

    def _place(self, block: Block, first: int, before: int, owners: Sequence[int]) -> None:
        """Set for each failure of a block the number of rows before it, and sort failures by record.

        Parameters
        ----------
        first
            Index of the block's first failure among all failures.
        before
            Number of rows before the block.
        owners
            Index of the record that each row of the block came from, in order.
        """
        failures = self.failures[first:]
        numbers = [bad[3] or 0 for bad in failures]
        if before or owners:
            kept = [block.numbers[at] for at in owners]
            failures = [
                # `_replace` takes six times as long
                tuple.__new__(Failure, (*bad[:-1], before + bisect_left(kept, number)))
                for bad, number in zip(failures, numbers, strict=True)
            ]
        if any(map(gt, numbers, numbers[1:])):
            failures.sort(key=lambda bad: bad.record or 0)
        self.failures[first:] = failures

    def _extend(self, results: list[Any], calls: Iterator[Any]) -> BaseException | None:
        """Append results until a call raises; return the exception."""
        error = _extend(results, self._results(calls))
        self.end_fork()
        return error

    def _call(self, block: Block, rows: Sequence[Any]) -> tuple[list[Any], Sequence[int]]:
        """Return the results of the function and the index of the record that each came from."""
        results: list[Any] = []
        done: list[range] = []
        refused: dict[int, BaseException] = {}
        at = 0
        calls = self._calls(self._followed(block, rows))
        retry = self.program.retry
        retries = retry.attempts > 1
        while at < len(rows):
            before = len(results)
            error = self._extend(results, calls)  # an iterator of `map` continues after an exception
            done.append(range(at, at + len(results) - before))
            at = done[-1].stop
            if at < len(rows):
                if error is None or (retries and retry.again(error, 1)) or isinstance(error, RetryAfter):
                    refused[at] = error or _NO_VALUE
                else:
                    self.fail(block, at, "call", error)
                at += 1
        failed = at - len(results) - len(refused)
        if failed:
            self.add(block, 0, failed)
        owners: Sequence[int] = done[0] if len(done) == 1 else list(chain(*done))
        values, owners = _spread(results, owners, refused, lambda at: self._note(block, at))
        if not refused:
            self.state.position.clear()
            return values, owners
        given = self._again(block, rows, refused)
        self.state.position.clear()
        pairs = [*zip(owners, values, strict=True), *((at, value) for at in given for value in given[at])]
        pairs.sort(key=itemgetter(0))
        return [value for _, value in pairs], [at for at, _ in pairs]

    def _results(self, calls: Iterator[Any]) -> Iterator[Any]:
        """Return the results of calls; if one object is refilled for every record, return copies."""
        if self._unwatched:
            return chain.from_iterable(self._watched(calls))
        return calls if self._refilled is None else map(_copied, calls)

    def _watched(self, calls: Iterator[Any]) -> Iterator[Iterator[Any]]:
        """Yield the results of calls in two parts: the first two of the chunk, then the rest."""
        yield self._first_results(calls)
        if not self._unwatched:  # otherwise there are no more, or the function raised StopIteration
            yield self._results(calls)

    def _first_results(self, calls: Iterator[Any]) -> Iterator[Any]:
        """Yield the first two results; a dict or list that the function still refers to is copied."""
        for value in calls:
            self._unwatched -= 1
            if self._unwatched:
                if type(value) in _REFILLABLE and getrefcount(value) > _UNHELD:
                    self._refilled = value
                    value = _copied(value)
            elif value is self._refilled:
                value = _copied(value)
            else:
                self._refilled = None
            yield value
            if not self._unwatched:
                return

    def _again(self, block: Block, rows: Sequence[Any], refused: dict[int, BaseException]) -> dict[int, list[Any]]:
        """Retry the failed records of a block, as often as the job allows.

        Returns the values of records that succeeded; the others become failures.
        """
        retry = self.program.retry
        given: dict[int, list[Any]] = {}
        tries = dict.fromkeys(refused, 1)
        for attempt in count(1):
            hopeful = [at for at, error in refused.items() if retry.again(error, attempt)]
            if not hopeful:
                break
            time.sleep(retry.after((refused[at] for at in hopeful), attempt))
            self.retries += len(hopeful)
            for at in hopeful:
                tries[at] += 1
                self._note(block, at)
                given[at], error = tried(self._calls(iter(rows[at : at + 1])))
                self.end_fork()
                del refused[at]
                if error is not None:
                    refused[at] = error
        for at in sorted(refused):
            self.fail(block, at, "call", refused[at], tries[at])
        self.add(block, 0, len(refused))
        return given

    def _followed(self, block: Block, rows: Sequence[Any]) -> Iterator[Any]:
        """Iterate over the records of a block and mark the position, exactly if the task may be aborted."""
        if not len(rows):
            return iter(())
        limits, again = self.program.limits, self.task.attempt > 1
        timed = again or limits.seconds is not None or limits.memory is not None
        return self.state.position.follow(rows, self._ordinal(block), block.numbers, timed=timed)

    def _note(self, block: Block, at: int) -> None:
        """Mark that user code runs for one record of a block."""
        self.state.position.note(self._ordinal(block), block.numbers[at])

    def _ordinal(self, block: Block) -> int:
        """Return the index of a block's span in the chunk; the search starts at the previous one."""
        spans = self.task.chunk.spans
        while self._span < len(spans) - 1 and spans[self._span] is not block.span:
            self._span += 1
        return self._span

    def _calls(self, left: Iterator[Any]) -> Iterator[Any]:
        """Return an iterator of the calls, as fast as `map`: without a Python frame per record."""
        fn = self.program.fn
        if self.program.args:
            fn = partial(fn, **self.program.args)
        return map(fn, left, *map(repeat, self.extra))

    def _convert(self, block: Block, values: list[Any], owners: Sequence[int]) -> Sequence[int]:
        """Pass results to the sink; return the records whose rows it accepted."""
        try:
            self.outlet.take(values)
        except (WriteError, *PASSING):
            raise
        except BaseException as error:
            return self._one_by_one(block, values, owners, error)
        self.add(block, len(values), 0)
        return owners

    def _one_by_one(
        self, block: Block, values: list[Any], owners: Sequence[int], reason: BaseException
    ) -> Sequence[int]:
        """Store the values of records that fit as a whole; the other records become failures."""
        bad = self._misfits(values, owners)
        good = [value for at, value in zip(owners, values, strict=True) if at not in bad]
        try:
            self._take_fitting(good)
        except (WriteError, *PASSING):
            raise
        except BaseException:
            bad, good = dict.fromkeys(owners, reason), []
        for at, error in bad.items():
            self.fail(block, at, "convert", error)
        self.add(block, len(good), len(bad))
        return [at for at in owners if at not in bad]

    def _misfits(self, values: list[Any], owners: Sequence[int]) -> dict[int, BaseException]:
        """Return the records whose values do not match the schema so far, with the errors."""
        bad: dict[int, BaseException] = {}
        schema = self.outlet.schema
        for at, pairs in groupby(zip(owners, values, strict=True), key=itemgetter(0)):
            grown = schema
            try:
                for _, value in pairs:
                    grown = self.outlet.fit_value(grown, value)
                schema = grown
            except PASSING:
                raise
            except BaseException as misfit:
                bad[at] = misfit  # its fields do not affect the records after it
        return bad

    def _take_fitting(self, values: list[Any]) -> None:
        """Pass values to the sink that each fit by themselves."""
        if not values:
            return
        try:
            self.outlet.take(values)
        except SchemaError:  # values without a common Arrow type may still be unified: 2**63 - 1 and a decimal
            self.outlet.add(concat(values_to_table([value]) for value in values))


_REFILLABLE = {dict, list}
_UNHELD = 2
"""Reference count of a value held only by a local variable and the argument of `getrefcount`."""


def _copied(value: Any) -> Any:
    """Return a deep copy of a dict or list; other values, and those that cannot be copied, as they are."""
    if type(value) not in _REFILLABLE:
        return value
    try:
        return deepcopy(value)
    except Exception:
        return value


_NO_VALUE = RuntimeError("the function raised StopIteration")


def _spread(
    results: list[Any],
    owners: Sequence[int],
    refused: dict[int, BaseException],
    note: Callable[[int], None] | None = None,
) -> tuple[list[Any], Sequence[int]]:
    """Drop ``None`` and expand generators into their values; records whose generators raise become refused."""
    kinds = kinds_of(results)
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
        if note is not None:
            note(at)
        error = _extend(given, result)
        if error is not None:
            refused[at] = error
            continue
        kept = [value for value in given if value is not None]
        values.extend(kept)
        sources.extend([at] * len(kept))
    return values, sources


def tried(calls: Iterator[Any]) -> tuple[list[Any], BaseException | None]:
    """Return the values of one record's call, with generators expanded and without ``None``, or its error."""
    results: list[Any] = []
    error = _extend(results, calls)
    if error is not None or not results:
        return [], error or _NO_VALUE
    refused: dict[int, BaseException] = {}
    values, _ = _spread(results, [0], refused)
    return values, refused.get(0)


def _extend(results: list[Any], calls: Iterator[Any]) -> BaseException | None:
    """Append results until one raises; the number of results then identifies the failed call."""
    try:
        results.extend(calls)
    except PASSING:
        raise
    except BaseException as error:
        return error
    return None


def _is_iterator(kind: type) -> bool:
    return issubclass(kind, GeneratorType) or (hasattr(kind, "__next__") and not hasattr(kind, "read"))
