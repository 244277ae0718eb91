"""Writer of output parts: gathers pieces in input order up to a target size; parts are visible once whole."""

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
"""Minimum seconds allowed for the writing of a part."""
LEAST_SPEED = 1_000_000
"""Minimum write speed in bytes per second; a slower disk is treated as hung."""
_PART = 1 << 41
"""First key of parts, above those of chunks and merges."""


class PendingPiece(NamedTuple):
    """Rows waiting to be written to a part."""

    number: int
    """Ledger number of their chunk."""
    piece: Piece


@dataclass
class _PartInProgress:
    """Part that is being assembled."""

    pieces: Sequence[Piece | Slice]
    then: Callable[[DonePart], None]
    removes: bool
    """Whether its pieces are deleted after assembly."""
    whole: DonePart | None = None


class DatasetWriter:
    """Writes the pieces of settled chunks as parts of an output folder, or as one file.

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
        """Ledger numbers of the chunks that are done and not yet added."""
        self._committed: dict[int, int] = {}
        """Rows of chunks, by number, that earlier runs put into parts."""
        self._ledger: Ledger | None = None

    @property
    def schema(self) -> pa.Schema | None:
        """Schema of all rows so far."""
        schema = self._fitting.schema
        return None if schema is None else unmarked(schema)

    @property
    def parts(self) -> list[DonePart]:
        """Visible parts, in order."""
        return list(self._parts.values())

    @property
    def ledger(self) -> Ledger:
        """The open ledger."""
        assert self._ledger is not None
        return self._ledger

    def open(self, *, mends: bool = False) -> list[SettledChunk]:
        """Create the folders, or recover those of earlier runs; returns the finished chunks.

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
        """Create the folders; a new output without them cannot be written."""
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
        """Delete the output of an earlier run, and nothing else; the plan refused other files."""
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
        """Return the schema of a whole output, with the row marks that no part shows."""
        schema = next((part.schema for part in reversed(history.parts.values()) if part.rows), None)
        pieces = (piece for chunk in history.chunks.values() for piece in chunk.pieces)
        for one in {id(piece.schema): piece.schema for piece in pieces}.values():
            schema = self._format.unite(schema, one)
        return schema

    def note(self, settled: SettledChunk) -> None:
        """Record a finished chunk, in any order."""
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
        """Add the pieces of the next chunk, in input order.

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
        """Return a chunk that fits the rows before it, or that failed; ``None`` if it is reprocessed."""
        fitted = self._fitting.fit(settled, [piece.schema for piece in settled.payload or ()])
        if fitted is not settled:
            _remove(settled.payload)
        return fitted

    def _once_more(self, task: Task) -> None:
        """Reprocess a chunk under a new number and void its ledger entry."""
        task = self._with_data(task)
        number = self._numbers.pop(task.key, None)
        if number is not None:
            self.ledger.void([number])
        self._again(task)

    def _with_data(self, task: Task) -> Task:
        """Return a task with the in-memory records that the ledger of an earlier run lacks."""
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
        """Assemble the gathered pieces into the next part."""
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
        """Assemble pieces into a part, which replaces any part of the same name.

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
        """Commit whole parts in order, so that the visible output has no gap."""
        while self._made and self._made[0].whole is not None:
            made = self._made.popleft()
            assert made.whole is not None
            made.then(made.whole)
            _remove(piece for piece in made.pieces if isinstance(piece, Piece) and made.removes)

    def commit(self, parts: Sequence[DonePart], changed: Mapping[int, DoneChunk] | None = None) -> None:
        """Record whole parts and the chunks that they change, and make the parts visible."""
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
        """Assemble the remaining pieces into the last part; an output without rows has one empty part."""
        if self._fitting.schema is None and self._parts:
            self._fitting.schema = self.parts[-1].schema
        if not (self.schema and self.schema.names) and (self._format.keeps_schema or not self._begun):
            self._fitting.schema = _unknown_columns(self._format)
        if self._held or not self._begun:
            self._cut_part()

    def unite(self) -> None:
        """Rewrite parts that lack a column or a type which later parts have."""
        if self.schema is None:
            return
        for part in list(self._parts.values()):
            if not part.schema.equals(self._fitting.schema) and self._format.keeps_schema:
                old = Slice(str(part_file(self._destination, part.name)))
                self.assemble(part._replace(schema=self.schema), [old])

    def finish(self, errors: ErrorTable, papers: Mapping[str, bytes]) -> None:
        """Write the error table and the reports next to the parts, then record the end of the job."""
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
        """Write the tables of an interrupted run."""
        if self._ledger is not None:
            with suppress(OSError):  # the disk is full, and the reason for the end is on its way already
                self._write_tables(errors, papers)

    def close(self, *, complete: bool) -> None:
        """Release the output; files needed to resume stay."""
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
    """Return the timeout in seconds for the writing of a part."""
    nbytes = sum(piece.nbytes for piece in pieces if isinstance(piece, Piece))
    for place in {place_of(piece.path) for piece in pieces if isinstance(piece, Slice)}:
        with suppress(OSError):  # whoever reads it tells that it is gone
            nbytes += store_of(place).size(place) or 0
    return PATIENCE + nbytes / LEAST_SPEED


def _remove(pieces: Any) -> None:
    """Delete the files of pieces; at a store they are deleted at the end, a thousand per request."""
    for piece in pieces or ():
        if piece.path and not is_uri(piece.path):
            Path(piece.path).unlink(missing_ok=True)


def _unknown_columns(kind: Format) -> pa.Schema:
    """Return the schema of an output without rows whose columns are unknown.

    One column of nulls, named like that of scalars: DuckDB refuses a Parquet file without columns, and
    pandas, Polars and Arrow a CSV file without a header. JSON Lines has no header.
    """
    import pyarrow as pa

    return pa.schema([("value", pa.null())] if kind.keeps_schema else [])
