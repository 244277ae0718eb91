"""Parquet: workers encode row groups, parts are put together without decoding them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from batchflow.errors import SchemaError
from batchflow.formats.splice import splice
from batchflow.model import Piece
from batchflow.tables import conform

if TYPE_CHECKING:
    import pyarrow as pa

SMALL_ROWS = 20_000
SMALL_BYTES = 2_000_000
"""A piece under both is decoded and put into a row group with its neighbours: many small row groups
make a file large and slow to read."""
_GATHERED_ROWS = 100_000
_GATHERED_BYTES = 16_000_000
_ROW_GROUP = 1_000_000


class ParquetFormat:
    """Parquet files, a row group for each chunk or for some small ones."""

    suffix = ".parquet"
    piece_suffix = ".parquet"
    keeps_schema = True

    def check(self, schema: pa.Schema) -> None:
        """Refuse structs without fields, which Parquet does not have."""
        import pyarrow as pa

        for field in schema:
            if pa.types.is_struct(field.type) and field.type.num_fields == 0:
                message = f"column {field.name!r} holds empty mappings, which Parquet cannot: give them a key"
                raise SchemaError(message)

    def write_piece(self, table: pa.Table, path: str) -> None:
        """Encode the rows of a chunk."""
        import pyarrow.parquet as pq

        pq.write_table(table, path, row_group_size=_ROW_GROUP, compression="snappy")

    def assemble(self, pieces: Sequence[Piece], schema: pa.Schema, path: str) -> None:
        """Put row groups together; small ones, and those of another schema, are encoded again."""
        made: list[str] = []
        sources: list[str] = []
        try:
            for run in _runs(pieces, schema):
                if len(run) == 1 and run[0].schema.equals(schema):
                    sources.append(run[0].path)
                    continue
                gathered = f"{path}.{len(made)}"
                made.append(gathered)
                self._gather(run, schema, gathered)
                sources.append(gathered)
            with Path(path).open("wb") as part:
                splice(sources, part)
                part.flush()
                os.fsync(part.fileno())
        finally:
            for name in made:
                Path(name).unlink(missing_ok=True)

    def restate(self, part: str, schema: pa.Schema, path: str) -> None:
        """Write a finished part once more with another schema, row group by row group."""
        import pyarrow.parquet as pq

        with pq.ParquetFile(part) as old, Path(path).open("wb") as new, pq.ParquetWriter(new, schema) as writer:
            for group in range(old.num_row_groups):
                writer.write_table(conform(old.read_row_group(group, use_threads=False), schema))
            writer.close()
            os.fsync(new.fileno())

    def _gather(self, run: Sequence[Piece], schema: pa.Schema, path: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables = [conform(pq.read_table(piece.path, use_threads=False), schema) for piece in run]
        self.write_piece(pa.concat_tables(tables) if tables else schema.empty_table(), path)


def _runs(pieces: Sequence[Piece], schema: pa.Schema) -> Iterator[list[Piece]]:
    """Yield neighbouring pieces that make one row group together."""
    run: list[Piece] = []
    rows = nbytes = 0
    for piece in pieces:
        if piece.rows >= SMALL_ROWS or piece.nbytes >= SMALL_BYTES:
            if run:
                yield run
            yield [piece]
            run, rows, nbytes = [], 0, 0
            continue
        run.append(piece)
        rows, nbytes = rows + piece.rows, nbytes + piece.nbytes
        if rows >= _GATHERED_ROWS or nbytes >= _GATHERED_BYTES:
            yield run
            run, rows, nbytes = [], 0, 0
    if run or not pieces:
        yield run
