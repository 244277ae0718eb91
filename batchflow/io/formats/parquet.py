"""Parquet: workers encode row groups, parts are put together without decoding them."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchflow.core.chunks import Piece, Slice
from batchflow.errors import SchemaError
from batchflow.io.arrow.precision import inside, type_cache
from batchflow.io.arrow.schema import conform, nested_type, unify
from batchflow.io.formats.parquet_concat import splice

if TYPE_CHECKING:
    import pyarrow as pa

SMALL_ROWS = 20_000
SMALL_BYTES = 2_000_000
"""A piece under both is decoded and put into a row group with its neighbours: many small row groups
make a file large and slow to read."""
_GATHERED_ROWS = 100_000
_GATHERED_BYTES = 16_000_000
_ROW_GROUP = 1_000_000
_ARROW = b"ARROW1"
_NO_KEY = "_"
"""Field of mappings that have no other."""


class ParquetFormat:
    """Parquet files, a row group for each chunk or for some small ones."""

    suffix = ".parquet"
    piece_suffix = ".piece"
    keeps_schema = True

    def check(self, schema: pa.Schema) -> None:
        """Refuse columns of types that Parquet does not have."""
        for field in schema:
            if (missing := _missing_in_parquet(field.type)) is not None:
                message = f"column {field.name!r} holds {missing}, which Parquet cannot: use format='arrow'"
                raise SchemaError(message)

    def check_cells(self, table: pa.Table) -> None:
        """Refuse nothing: Parquet holds each value of its types."""
        del table

    def unite(self, known: pa.Schema | None, schema: pa.Schema, where: str = "") -> pa.Schema:
        """Return the schema that holds both without loss."""
        return unify(known, schema, where)

    def write_piece(self, table: pa.Table, path: str) -> None:
        """Encode the rows of a chunk: as Arrow IPC if a mapping has no keys, which it may have in other chunks."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not _with_keys(table.schema).equals(table.schema):
            with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
            return
        pq.write_table(table, path, row_group_size=_ROW_GROUP, compression="snappy")

    def assemble(self, pieces: Sequence[Piece | Slice], schema: pa.Schema, path: str) -> None:
        """Put row groups together; small ones, and those of another schema, are encoded again."""
        made: list[str] = []
        sources: list[str] = []
        files = _Files()
        schema = _with_keys(schema)
        try:
            for run in _runs(pieces):
                if len(run) == 1 and _fits(run[0], schema):
                    sources.append(run[0].path)
                    continue
                made.append(f"{path}.{len(made)}")
                sources.append(made[-1])
                self._write(_tables(run, schema, files), schema, made[-1])
            with Path(path).open("wb") as part:
                splice(sources, part)
                part.flush()
                os.fsync(part.fileno())
        finally:
            files.close()
            for name in made:
                Path(name).unlink(missing_ok=True)

    def _write(self, tables: Iterator[pa.Table], schema: pa.Schema, path: str) -> None:
        """Encode tables one after the other, gathered to row groups of a good size."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetWriter(path, schema) as writer:
            held: list[pa.Table] = []
            rows = 0
            for table in tables:
                held.append(table)
                rows += table.num_rows
                if rows >= _GATHERED_ROWS:
                    writer.write_table(pa.concat_tables(held), _ROW_GROUP)
                    held, rows = [], 0
            writer.write_table(pa.concat_tables(held) if held else schema.empty_table(), _ROW_GROUP)


@type_cache
def _missing_in_parquet(kind: Any) -> Any:
    """Return the part of a type that Parquet does not have, if any."""
    import pyarrow as pa

    if pa.types.is_union(kind) or kind == pa.month_day_nano_interval():
        return kind
    return next(filter(None, map(_missing_in_parquet, inside(kind).values())), None)


def _with_keys(schema: pa.Schema) -> pa.Schema:
    """Return a schema in which mappings that never have a key have one that is null: Parquet has no others."""
    import pyarrow as pa

    return pa.schema([field.with_type(_with_key(field.type)) for field in schema])


def _with_key(kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_struct(kind) and not kind.num_fields:
        return pa.struct([pa.field(_NO_KEY, pa.null())])
    held = {name: _with_key(inner) for name, inner in inside(kind).items()}
    return kind if held == inside(kind) else nested_type(kind, held)


def _fits(piece: Piece | Slice, schema: pa.Schema) -> bool:
    """Whether the row groups of a file can be taken as they are."""
    import pyarrow.parquet as pq

    if isinstance(piece, Piece):
        return bool(piece.schema.equals(schema))
    return piece.whole and bool(pq.read_schema(piece.path).equals(schema))


class _Files:
    """Open files of which slices are taken, each with the row group that was decoded last."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[Any, list[int]]] = {}
        self._groups: dict[str, tuple[int, pa.Table]] = {}

    def tables(self, piece: Piece | Slice, schema: pa.Schema) -> Iterator[pa.Table]:
        """Yield the rows of a piece or slice, row group by row group."""
        file, ends = self._opened(piece.path)
        start, stop = (0, None) if isinstance(piece, Piece) else (piece.start, piece.stop)
        stop = ends[-1] if stop is None else min(stop, ends[-1])
        group = max(0, bisect_right(ends, start) - 1)
        while start < stop:
            last = min(stop, ends[group + 1])
            if start < last:
                table = self._group(piece.path, file, group, schema)
                yield table.slice(start - ends[group], last - start)
            start, group = last, group + 1

    def _group(self, path: str, file: Any, group: int, schema: pa.Schema) -> pa.Table:
        known = self._groups.get(path)
        if known is None or known[0] != group:
            table = conform(file.read_row_group(group, use_threads=False), schema)
            known = self._groups[path] = group, table
        return known[1]

    def _opened(self, path: str) -> tuple[Any, list[int]]:
        """Return a file, and where its row groups end; of others than the last two none stays open."""
        import pyarrow.parquet as pq

        known = self._files.pop(path, None)
        if known is None:
            for old in list(self._files)[:-1]:  # slices of a part take turns with those of one piece
                self._files.pop(old)[0].close()
                self._groups.pop(old, None)
            file = _ArrowPiece(path) if _is_arrow(path) else pq.ParquetFile(path)
            sizes = (file.metadata.row_group(at).num_rows for at in range(file.num_row_groups))
            known = file, list(accumulate(sizes, initial=0))
        self._files[path] = known
        return known

    def close(self) -> None:
        """Close all files."""
        for file, _ in self._files.values():
            file.close()


class _ArrowPiece:
    """A piece in Arrow IPC, read like a Parquet file of one row group."""

    num_row_groups = 1

    def __init__(self, path: str) -> None:
        import pyarrow as pa

        with pa.OSFile(path, "rb") as source:
            self._table = pa.ipc.open_file(source).read_all()

    @property
    def metadata(self) -> _ArrowPiece:
        return self

    def row_group(self, index: int) -> pa.Table:
        del index
        return self._table

    def read_row_group(self, index: int, *, use_threads: bool) -> pa.Table:
        del index, use_threads
        return self._table

    def close(self) -> None:
        """Close nothing: the rows are in memory."""


def _is_arrow(path: str) -> bool:
    with Path(path).open("rb") as file:
        return file.read(len(_ARROW)) == _ARROW


def _tables(run: Sequence[Piece | Slice], schema: pa.Schema, files: _Files) -> Iterator[pa.Table]:
    """Yield the rows of neighbouring pieces and slices with one schema, row group by row group."""
    for piece in run:
        yield from files.tables(piece, schema)


def _size(piece: Piece | Slice) -> tuple[int | None, int]:
    """Return the rows of a piece, ``None`` if only its file tells, and its bytes, as far as they are known."""
    if isinstance(piece, Piece):
        return piece.rows, piece.nbytes
    return None if piece.stop is None else piece.stop - piece.start, 0


def _runs(pieces: Sequence[Piece | Slice]) -> Iterator[list[Piece | Slice]]:
    """Yield neighbouring pieces and slices that make one row group together; large ones stay alone."""
    run: list[Piece | Slice] = []
    rows = nbytes = 0
    for piece in pieces:
        count, size = _size(piece)
        if count is None or count >= SMALL_ROWS or size >= SMALL_BYTES:
            if run:
                yield run
            yield [piece]
            run, rows, nbytes = [], 0, 0
            continue
        run.append(piece)
        rows, nbytes = rows + count, nbytes + size
        if rows >= _GATHERED_ROWS or nbytes >= _GATHERED_BYTES:
            yield run
            run, rows, nbytes = [], 0, 0
    if run or not pieces:
        yield run
