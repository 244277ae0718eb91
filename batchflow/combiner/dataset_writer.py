"""Parts on disk: pieces gathered in input order, put together near a target size, visible only when whole."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from batchflow.checkpoint.destination import ERRORS, Destination
from batchflow.checkpoint.history import DoneChunk, DonePart, History
from batchflow.checkpoint.ledger import Ledger, refuse_busy
from batchflow.checkpoint.manifest import digest_of, publish_plan, write_plan
from batchflow.checkpoint.recovery import behind, in_order, part_file, part_sizes, publish, recover
from batchflow.combiner.error_table import ErrorTable
from batchflow.combiner.schema import SchemaReconciler, name_of
from batchflow.core.chunks import Key, Piece, Slice
from batchflow.core.outcomes import Failed, Failure, Outcome, SettledChunk
from batchflow.core.resources import parse_bytes
from batchflow.core.text import printable
from batchflow.core.work import AssemblePart, Task, WorkItem
from batchflow.errors import GO_ON, BatchflowError, DestinationError, InputError, OutputError
from batchflow.io.arrow.precision import unmarked
from batchflow.io.formats.base import Format, format_of
from batchflow.io.stores import Place, Uri, is_uri, place_of, store_of
from batchflow.io.stores.staging import sweep
from batchflow.plan import Plan

if TYPE_CHECKING:
    import pyarrow as pa

_PART_NAME = re.compile(r"part-\d{5,}\.(parquet|csv|jsonl|arrow)")
PATIENCE = 300.0
"""Seconds that the writing of a part may take however small it is,"""
LEAST_SPEED = 1_000_000
"""and bytes a second that it must write if it is not: a disk that does less hangs."""
_PART = 1 << 41
"""Keys of parts: above those of chunks and merges."""


class PendingPiece(NamedTuple):
    """Rows that wait for their part."""

    number: int
    """Of their chunk, in the ledger."""
    piece: Piece


@dataclass
class _PartInProgress:
    """A part on its way."""

    pieces: Sequence[Piece | Slice]
    then: Callable[[DonePart], None]
    removes: bool
    """Whether its pieces are of no use once it is there."""
    whole: DonePart | None = None


class DatasetWriter:
    """Turns the pieces of settled chunks into parts of an output folder, or into one file.

    Parameters
    ----------
    plan
        The job; its destination is made here.
    delegate
        Has a piece of work done on the executor and calls back with its outcome.
    again
        Has a chunk done once more; it comes out again, in its place.
    """

    def __init__(
        self,
        plan: Plan,
        delegate: Callable[[WorkItem, Callable[[Outcome], None]], None],
        again: Callable[[Task], None],
    ) -> None:
        assert plan.destination is not None
        self._plan = plan
        self._destination: Destination = plan.destination
        self._delegate = delegate
        self._again = again
        self._format: Format = format_of(self._destination.format)
        self._fitting = SchemaReconciler(plan, self._once_more, unite=self._format.unite)
        self._target = parse_bytes(plan.spec.part_size)
        self._held: list[PendingPiece] = []
        self._held_bytes = 0
        self._parts: dict[str, DonePart] = {}
        self._begun = 0
        self._assembled = 0
        self._made: deque[_PartInProgress] = deque()
        self._numbers: dict[Key, int] = {}
        """Of the chunks that are done and not yet added, in the ledger."""
        self._committed: dict[int, int] = {}
        """Rows of chunks, by number, that earlier runs put into parts."""
        self._ledger: Ledger | None = None

    @property
    def schema(self) -> pa.Schema | None:
        """Columns and types of all rows so far."""
        schema = self._fitting.schema
        return None if schema is None else unmarked(schema)

    @property
    def parts(self) -> list[DonePart]:
        """The parts that are visible, in order."""
        return list(self._parts.values())

    @property
    def ledger(self) -> Ledger:
        """What is written down; open."""
        assert self._ledger is not None
        return self._ledger

    def open(self, *, mends: bool = False) -> list[SettledChunk]:
        """Make the folders, or take over what earlier runs left in them; returns the chunks that are done.

        Parameters
        ----------
        mends
            Only what failed is tried again.
        """
        path, meta = self._destination.path, self._destination.meta
        history = self._plan.history
        try:
            if history is None:
                self._clear()
            self._make()
            self._ledger = Ledger(meta, history or History())
            write_plan(meta, self._plan.manifest)
            self.ledger.run(digest_of(self._plan.manifest), self._plan.spec.version, mends=mends)
            publish_plan(meta)
            return self._take_over(history, mends=mends) if history else []
        except OSError as error:
            raise _cannot_write(path, error) from error

    def _make(self) -> None:
        """Make the folders; where a new output cannot have them there is nothing to go on with."""
        destination = self._destination
        try:
            destination.store.make(destination.pieces)
            if not destination.one_file:
                destination.store.make(destination.path)
        except OSError as error:
            if self._plan.history is not None:
                raise
            message = f"cannot write to {destination.path}: {error.strerror or error}; give another place"
            raise DestinationError(message) from error

    def _clear(self) -> None:
        """Remove what an earlier run of ours made, and nothing else; the plan refused what is not ours."""
        destination = self._destination
        refuse_busy(destination.meta)
        names = part_sizes(destination)
        ours = [name for name in names if destination.one_file or _PART_NAME.fullmatch(name)]
        destination.store.remove(part_file(destination, name) for name in ours)
        destination.store.remove_all(destination.meta)

    def _take_over(self, history: History, *, mends: bool) -> list[SettledChunk]:
        done = recover(self._destination, history)
        if gone := history.chunks.keys() - done.keys():
            self.ledger.void(gone)
            history.void(gone)
        # Parts without rows are replaced when rows come; a retry puts its rows into them.
        empty = not mends and not any(part.rows for part in history.parts.values())
        self._parts = {} if empty else dict(history.parts)
        self._begun = len(self._parts)
        if history.ended or history.mends:  # else it is told again, chunk after chunk
            self._fitting.schema = self._schema_of(history)
        self._committed = history.committed()
        ordered = in_order(done, self._plan.inputs)
        self._numbers = {key: number for key, number, _ in ordered}
        return [
            SettledChunk(Task(key, one.chunk), one.stats, one.failures, list(one.pieces), one.counted, before=True)
            for key, _, one in ordered
        ]

    def _schema_of(self, history: History) -> pa.Schema | None:
        """Return the schema of a whole output, with the marks of its rows, which no part shows."""
        schema = next((part.schema for part in reversed(history.parts.values()) if part.rows), None)
        pieces = (piece for chunk in history.chunks.values() for piece in chunk.pieces)
        for one in {id(piece.schema): piece.schema for piece in pieces}.values():
            schema = self._format.unite(schema, one)
        return schema

    def note(self, settled: SettledChunk) -> None:
        """Write down that a chunk is done, whichever of those before it are not."""
        number = self._numbers.get(settled.key)
        if number is None:
            number = self._numbers[settled.key] = self.ledger.number()
        pieces = tuple(settled.payload or ())
        done = DoneChunk(settled.chunk, settled.stats, settled.failures, pieces, settled.counted)
        try:
            self.ledger.chunk(number, done)
        except OSError as error:
            raise _cannot_write(self._destination.path, error) from error

    def add(self, settled: SettledChunk) -> SettledChunk | None:
        """Take over the pieces of the next chunk, in input order.

        Returns what became of it: it may have failed for its types, and ``None`` means that it is done
        once more and comes again.
        """
        fitted = self.fitted(settled)
        if fitted is None:
            return None
        if fitted is not settled:
            self.note(fitted)
        number = self._numbers.pop(fitted.key)
        waiting = behind(fitted.payload or (), self._committed.get(number, 0))
        for at, piece in enumerate(waiting):
            if piece.rows:
                self._held.append(PendingPiece(number, piece))
                self._held_bytes += piece.nbytes
            if self._held_bytes >= self._target and not self._destination.one_file:
                self.ledger.sync_pieces(waiting[at + 1 :])  # the chunk can no more be done again as a whole
                self._cut_part()
        return fitted

    def fitted(self, settled: SettledChunk) -> SettledChunk | None:
        """Return a chunk as it is, if its rows go with those before, or as failed; ``None``: it comes again."""
        fitted = self._fitting.fit(settled, [piece.schema for piece in settled.payload or ()])
        if fitted is not settled:
            _remove(settled.payload)
        return fitted

    def _once_more(self, task: Task) -> None:
        """Have a chunk done once more, as another one: what is written down of it counts no more."""
        task = self._with_data(task)
        number = self._numbers.pop(task.key, None)
        if number is not None:
            self.ledger.void([number])
        self._again(task)

    def _with_data(self, task: Task) -> Task:
        """Return a task with the records that travel with it, which the ledger of an earlier run has not."""
        if task.data is not None:
            return task
        try:
            return task._replace(data=self._plan.source.records_of(task.chunk))
        except InputError as error:  # a generator is past them, so the next run does anew what is in no part
            store, pieces = self._destination.store, self._destination.pieces
            store.remove(pieces / name for name in store.sizes(pieces))
            message = f"{name_of(SettledChunk(task))}: its types do not go with those before it; {GO_ON}"
            raise OutputError(message) from error

    def _cut_part(self) -> None:
        """Have the gathered pieces put together as the next part."""
        name = f"part-{self._begun:05d}{self._format.suffix}"
        before: Sequence[Slice] = ()
        rows: dict[int, int] = {}
        for number, piece in self._held:
            rows[number] = rows.get(number, 0) + piece.rows
        chunks = tuple(rows.items())
        if self._destination.one_file:
            name = self._destination.path.name
            if name in self._parts:  # of an earlier run, to which new input came
                before = [Slice(str(self._destination.path))]
                chunks = (*self._parts[name].chunks, *chunks)
        self._begun += 1
        pieces = [held.piece for held in self._held]
        self._held, self._held_bytes = [], 0
        total = sum(count for _, count in chunks)
        self.assemble(DonePart(name, total, 0, "", self.schema, chunks, ""), [*before, *pieces])

    def assemble(
        self, part: DonePart, pieces: Sequence[Piece | Slice], then: Callable[[DonePart], None] | None = None
    ) -> None:
        """Have pieces put together as a part, which then takes the place of the one of that name.

        Parameters
        ----------
        part
            Its size and digest are found out here.
        then
            Called with the whole part, in the place of `commit`.
        """
        temporary = f"{os.urandom(8).hex()}-{part.name}.new"
        made = _PartInProgress(pieces, then or (lambda whole: self.commit([whole])), removes=then is None)
        self._made.append(made)

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, Failed):
                raise self._unwritten(part, outcome.failure)
            nbytes, checksum = outcome.payload
            made.whole = part._replace(nbytes=nbytes, digest=checksum, temporary=temporary)
            self._commit_in_order()

        self._assembled += 1
        key: Key = (_PART, self._assembled)
        path = str(self._destination.pieces / temporary)
        work = AssemblePart(key, tuple(pieces), part.schema, path, self._destination.format, _patience(pieces))
        self._delegate(work, done)

    def _commit_in_order(self) -> None:
        """Commit the parts that are whole, but none before those in front of it: what is visible has no gap."""
        while self._made and self._made[0].whole is not None:
            made = self._made.popleft()
            assert made.whole is not None
            made.then(made.whole)
            _remove(piece for piece in made.pieces if isinstance(piece, Piece) and made.removes)

    def commit(self, parts: Sequence[DonePart], changed: Mapping[int, DoneChunk] | None = None) -> None:
        """Write down parts that are whole, with chunks that they change, and make them visible."""
        try:
            self.ledger.parts(parts, changed)
            for part in parts:
                publish(self._destination, part)
                self._parts[part.name] = part
        except OSError as error:
            raise _cannot_write(self._destination.path, error) from error

    def _unwritten(self, part: DonePart, failure: Failure) -> OutputError:
        file = part_file(self._destination, part.name)
        try:
            self.ledger.refuse_others()  # who took the pieces away, perhaps
        except OSError as error:
            if isinstance(error, BatchflowError):
                raise
        return OutputError(f"cannot write {file}: {failure.error_type}: {printable(failure.message)}; {GO_ON}")

    def flush(self) -> None:
        """Have what is left put together as the last part; an output without rows is a part without rows."""
        if self._fitting.schema is None and self._parts:
            self._fitting.schema = self.parts[-1].schema
        if not (self.schema and self.schema.names) and (self._format.keeps_schema or not self._begun):
            self._fitting.schema = _unknown_columns(self._format)
        if self._held or not self._begun:
            self._cut_part()

    def unite(self) -> None:
        """Have parts written again that lack a column, or a type, which only later ones brought."""
        if self.schema is None:
            return
        for part in list(self._parts.values()):
            if not part.schema.equals(self._fitting.schema) and self._format.keeps_schema:
                old = Slice(str(part_file(self._destination, part.name)))
                self.assemble(part._replace(schema=self.schema), [old])

    def finish(self, errors: ErrorTable, papers: Mapping[str, bytes]) -> None:
        """Write the error table and the papers beside the parts, and then that everything is done."""
        try:
            table = self._write_tables(errors, papers)
            self.ledger.end(self._destination.store.digest(table))
        except OSError as error:
            raise _cannot_write(self._destination.path, error) from error

    def _write_tables(self, errors: ErrorTable, papers: Mapping[str, bytes]) -> Place:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.ledger.refuse_others()
        meta, store = self._destination.meta, self._destination.store
        table = pa.BufferOutputStream()
        pq.write_table(errors.table(), table)
        store.write(meta / ERRORS, table.getvalue())
        for name, data in papers.items():
            store.write(meta / name, data)
        return meta / ERRORS

    def leave(self, errors: ErrorTable, papers: Mapping[str, bytes]) -> None:
        """Write the tables of a run that did not come to its end."""
        if self._ledger is not None:
            with suppress(OSError):  # the disk is full, and the reason for the end is on its way already
                self._write_tables(errors, papers)

    def close(self, *, complete: bool) -> None:
        """Give the output free; what is needed to go on with it stays."""
        if self._ledger is None:
            return
        try:
            if complete:
                self._destination.store.remove_all(self._destination.pieces)
        finally:
            self._ledger.close()
        if isinstance(self._destination.path, Uri):
            sweep()


def _cannot_write(path: Place, error: OSError) -> OutputError:
    if isinstance(error, BatchflowError):
        raise error
    return OutputError(f"cannot write to {path}: {error.strerror or error}; {GO_ON}")


def _patience(pieces: Iterable[Piece | Slice]) -> float:
    """Return the seconds after which a part that is still not written must be on a disk that hangs."""
    nbytes = sum(piece.nbytes for piece in pieces if isinstance(piece, Piece))
    for place in {place_of(piece.path) for piece in pieces if isinstance(piece, Slice)}:
        with suppress(OSError):  # whoever reads it tells that it is gone
            nbytes += store_of(place).size(place) or 0
    return PATIENCE + nbytes / LEAST_SPEED


def _remove(pieces: Any) -> None:
    """Remove the files of pieces; of a store they all go in the end, a thousand in each request."""
    for piece in pieces or ():
        if piece.path and not is_uri(piece.path):
            Path(piece.path).unlink(missing_ok=True)


def _unknown_columns(kind: Format) -> pa.Schema:
    """Return the schema of an output without rows whose columns nobody knows.

    One column of nulls, named like that of scalars: DuckDB refuses a Parquet file without columns, and
    pandas, Polars and Arrow a CSV file without a header. JSON Lines has no header.
    """
    import pyarrow as pa

    return pa.schema([("value", pa.null())] if kind.keeps_schema else [])
