"""What a job gives back: rows, the error table, the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from batchflow.combining.errors_table import ErrorTable
from batchflow.errors import FailedRecordsError
from batchflow.plan import Destination
from batchflow.report import Report
from batchflow.rows import Rows
from batchflow.tables import concat, table_to_values

if TYPE_CHECKING:
    import pyarrow as pa


class Result:
    """What a job gave back.

    Offers the Arrow PyCapsule stream, so ``duckdb.from_arrow(result)``, ``polars.DataFrame(result)``
    and ``pyarrow.table(result)`` take it as it is.

    Attributes
    ----------
    report : Report
        Rows in, out and failed, seconds, speed-up, memory.
    """

    def __init__(
        self,
        errors: ErrorTable,
        report: Report,
        rows: Sequence[Rows] = (),
        destination: Destination | None = None,
    ) -> None:
        self._errors = errors
        self.report = report
        self._rows = list(rows)
        self._destination = destination
        self._table: pa.Table | None = None

    @property
    def errors(self) -> pa.Table:
        """The error table: one row for each record or chunk that failed, and why, in input order."""
        return self._errors.table()

    @property
    def path(self) -> Path | None:
        """The folder or file that was written, ``None`` for a result in memory."""
        return self._destination.path if self._destination else None

    @property
    def table(self) -> pa.Table:
        """All rows as one Arrow table, in input order; an output on disk is read.

        Raises
        ------
        SchemaError
            If the function gave values that no table holds, or types that do not go together.
        """
        if self._destination is not None:
            table: pa.Table = _reader(self._destination).to_table()
            return table
        if self._table is None:
            self._table = concat(table for rows in self._rows for table in rows.tables)
            self._rows = [Rows([self._table])]
        return self._table

    @property
    def values(self) -> list[Any]:
        """What the function gave back, in input order: dicts, scalars, or any other objects."""
        if self._destination is not None:
            return table_to_values(self.table)
        return Rows(segment for rows in self._rows for segment in rows.segments).values()

    def __len__(self) -> int:
        return self.report.rows_out

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return the rows as an Arrow C stream; an output on disk is read as it is consumed."""
        if self._destination is not None:
            return _reader(self._destination).scanner().to_reader().__arrow_c_stream__(requested_schema)
        return self.table.__arrow_c_stream__(requested_schema)  # type: ignore[no-untyped-call]

    def raise_for_errors(self) -> Self:
        """Return the result itself if nothing failed.

        Raises
        ------
        FailedRecordsError
            If a record failed; it carries the error table.
        """
        if self.errors.num_rows:
            raise FailedRecordsError(tell(self.errors), self.errors)
        return self

    def __repr__(self) -> str:
        where = f" in {self.path}" if self.path else ""
        return f"<Result{where}: {self.report}>"


def _reader(destination: Destination) -> Any:
    """Return the output as a `pyarrow.dataset.Dataset`."""
    import pyarrow.dataset as ds

    kinds: dict[str, Any] = {"parquet": "parquet", "arrow": "arrow", "csv": "csv", "jsonl": "json"}
    return ds.dataset(destination.path, format=kinds[destination.format])


def tell(errors: pa.Table) -> str:
    """Return in one line how many records failed, and the first one as an example."""
    first = errors.slice(0, 1).to_pylist()[0]
    number = f", record {first['record']}" if first["record"] is not None else ""
    more = f"{errors.num_rows:,} records failed, the first one" if errors.num_rows > 1 else "1 record failed"
    return f"{more}: {first['source']}{number}: {first['error_type']}: {first['message']} ({first['phase']})"


