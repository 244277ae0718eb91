"""Parts on disk: pieces gathered in input order, put together near a target size, visible only when whole."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchflow.combining.errors_table import ErrorTable
from batchflow.combining.order import Settled
from batchflow.errors import BatchflowError, SchemaError
from batchflow.formats import Format, format_of
from batchflow.model import Assemble, Failed, Failure, Key, Outcome, Piece, Stats, Task, Work
from batchflow.plan import Plan, describe
from batchflow.report import Report
from batchflow.resources import parse_bytes
from batchflow.tables import unify

if TYPE_CHECKING:
    import pyarrow as pa

_PART_NAME = re.compile(r"part-\d{5,}\.(parquet|csv|jsonl|arrow)")
_PART = 1 << 41
"""Keys of parts: above those of chunks and merges."""


@dataclass
class _Part:
    """A part of the output."""

    number: int
    schema: Any
    ranges: list[dict[str, Any]]
    """Ledger lines that its commit will write."""


class Dataset:
    """Turns the pieces of settled chunks into parts of an output folder, or into one file.

    Parameters
    ----------
    plan
        The job; its destination is made here.
    delegate
        Has a piece of work done on the executor and calls back with its outcome.
    redo
        Does a chunk once more, and returns when it is done.
    """

    def __init__(
        self,
        plan: Plan,
        delegate: Callable[[Work, Callable[[Outcome], None]], None],
        redo: Callable[[Task], Settled],
    ) -> None:
        assert plan.destination is not None
        self._plan = plan
        self._destination = plan.destination
        self._delegate = delegate
        self._redo = redo
        self._format: Format = format_of(self._destination.format)
        self._target = parse_bytes(plan.spec.part_size)
        self._schema: pa.Schema | None = None
        self._pieces: list[Piece] = []
        self._ranges: list[dict[str, Any]] = []
        self._held = 0
        self._parts: list[_Part] = []
        self._opened = False

    def open(self) -> None:
        """Make the folders and write down the plan."""
        path, meta = self._destination.path, self._destination.meta
        self._opened = True
        self._clear()  # the plan refused what may not be replaced
        path.parent.mkdir(parents=True, exist_ok=True)
        self._destination.pieces.mkdir(parents=True, exist_ok=True)
        (meta / "ledger.jsonl").touch()
        _write_json(meta / "plan.json", _described(self._plan))

    def _clear(self) -> None:
        """Remove what an earlier run of ours made, and nothing else."""
        destination = self._destination
        if destination.one_file:
            destination.path.unlink(missing_ok=True)
        else:
            for part in destination.path.glob("part-*"):
                if _PART_NAME.fullmatch(part.name):
                    part.unlink()
        shutil.rmtree(destination.meta, ignore_errors=True)

    def add(self, settled: Settled) -> Settled:
        """Take over the pieces of the next chunk, in input order; returns what became of it.

        The schema is that of the rows before, in input order, however the input was cut. So a chunk
        whose types do not go with it is done once more with that schema known, and the records at
        fault fail alone; only where the function gives whole tables does the chunk fail as a whole.
        """
        schema, error = self._united(settled)
        if error is not None and self._plan.spec.per == "record":
            settled = self._redo(self._discarded(settled).task._replace(schema=schema))
            schema, error = self._united(settled)
        if error is not None:
            settled = _refused(self._discarded(settled), error)
        self._schema = schema
        self._ranges += _ranges(settled)
        for piece in settled.payload or []:
            if piece.rows:
                self._pieces.append(piece)
                self._held += piece.nbytes
            if self._held >= self._target and not self._destination.one_file:
                self._cut_part()
        return settled

    def _united(self, settled: Settled) -> tuple[pa.Schema | None, SchemaError | None]:
        """Return the schema with that of a chunk, or the one before and why the chunk does not go with it."""
        schema = self._schema
        try:
            for piece in settled.payload or []:
                schema = unify(schema, piece.schema, _name(settled))
        except SchemaError as error:
            return self._schema, error
        return schema, None

    def _discarded(self, settled: Settled) -> Settled:
        """Remove the pieces of a chunk."""
        for piece in settled.payload or []:
            if piece.rows:
                Path(piece.path).unlink(missing_ok=True)
        return settled._replace(payload=None)

    def _cut_part(self) -> None:
        """Have the gathered pieces put together as the next part."""
        part = _Part(len(self._parts), self._schema, self._ranges)
        self._parts.append(part)
        self._assemble(part, self._pieces)
        self._pieces, self._ranges, self._held = [], [], 0

    def _assemble(self, part: _Part, pieces: list[Piece], *, restate: bool = False) -> None:
        temporary = self._destination.pieces / f"{self._file(part).name}.new"

        def done(outcome: Outcome) -> None:
            if isinstance(outcome, Failed):
                failure = outcome.failure
                message = f"cannot write {self._file(part)}: {failure.error_type}: {failure.message}"
                raise BatchflowError(message)
            self._commit(part, temporary)
            for piece in [] if restate else pieces:
                Path(piece.path).unlink(missing_ok=True)

        key: Key = (_PART, part.number)
        self._delegate(Assemble(key, tuple(pieces), part.schema, str(temporary), restate), done)

    def _file(self, part: _Part) -> Path:
        path = self._destination.path
        return path if self._destination.one_file else path / f"part-{part.number:05d}{self._format.suffix}"

    def _commit(self, part: _Part, temporary: Path) -> None:
        """Make a part visible, then write it down: in this order, so the ledger never promises too much."""
        final = self._file(part)
        temporary.replace(final)
        _sync_folder(final.parent)
        self._write_ledger(part, part.ranges)
        part.ranges = []

    def _write_ledger(self, part: _Part, ranges: list[dict[str, Any]]) -> None:
        name = self._file(part).name
        with (self._destination.meta / "ledger.jsonl").open("a", encoding="utf-8") as ledger:
            ledger.writelines(json.dumps(line | {"part": name}) + "\n" for line in ranges)
            ledger.flush()
            os.fsync(ledger.fileno())

    def flush(self) -> None:
        """Have what is left put together as the last part; an output without rows is a part without rows."""
        if self._pieces or not self._parts:
            self._schema = _no_columns() if self._schema is None else self._schema
            self._cut_part()
        else:
            self._write_ledger(self._parts[-1], self._ranges)

    @property
    def schema(self) -> pa.Schema | None:
        """Columns and types of all rows so far."""
        return self._schema

    def unite(self) -> None:
        """Have parts written again that lack a column, or a type, which only later ones brought."""
        for part in self._parts:
            if not part.schema.equals(self._schema) and self._format.keeps_schema:
                part.schema = self._schema
                old = self._file(part)
                self._assemble(part, [Piece(str(old), 0, 0, None)], restate=True)

    def close(self, errors: ErrorTable, report: Report) -> None:
        """Write the error table and the report beside the parts, and remove what is temporary."""
        if not self._opened:
            return
        import pyarrow.parquet as pq

        meta = self._destination.meta
        pq.write_table(errors.table(), meta / "errors.parquet.new")
        (meta / "errors.parquet.new").replace(meta / "errors.parquet")
        _write_json(meta / "report.json", report.as_dict())
        shutil.rmtree(self._destination.pieces, ignore_errors=True)


def _no_columns() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([])


def _name(settled: Settled) -> str:
    span = settled.chunk.spans[0]
    return f"{span.input.uri}[{span.start}:{'' if span.stop is None else span.stop}]"


def _ranges(settled: Settled) -> list[dict[str, Any]]:
    """Return a ledger line for each span of a chunk."""
    counts = {count.uri: count for count in settled.stats.spans}
    lines = []
    for span in settled.chunk.spans:
        count = counts.get(span.input.uri)
        line: dict[str, Any] = {"source": span.input.uri, "start": span.start, "stop": span.stop}
        if settled.chunk.skip or settled.chunk.take is not None:
            line |= {"skip": settled.chunk.skip, "take": settled.chunk.take}
        if count is not None:
            line |= {"rows_in": count.rows_in, "rows_out": count.rows_out, "failed": count.failed}
        lines.append(line)
    return lines


def _refused(settled: Settled, error: SchemaError) -> Settled:
    """Return a chunk whose rows cannot be kept as failed."""
    span = settled.chunk.spans[0]
    failure = Failure(
        span.input.uri, span.start, span.stop, None, None, "convert", "SchemaError", str(error),
        worker=settled.stats.worker, seconds=settled.stats.seconds,
    )  # fmt: skip
    spans = tuple(count._replace(rows_out=0, failed=count.rows_in) for count in settled.stats.spans)
    stats: Stats = settled.stats._replace(spans=spans)
    return settled._replace(stats=stats, failures=(*settled.failures, failure))


def _described(plan: Plan) -> dict[str, Any]:
    """Return a plan as plain values; no function, no secret."""
    spec = plan.spec
    return {
        "batchflow": 1,
        "function": describe(spec.fn),
        "per": spec.per,
        "source": plan.source.kind,
        "format": plan.destination.format if plan.destination else None,
        "options": {"chunk": spec.chunk, "part_size": spec.part_size, "max_errors": spec.max_errors},
        "inputs": [{"uri": item.uri, "size": item.size, "version": item.version} for item in plan.inputs],
    }


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, default=str)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
