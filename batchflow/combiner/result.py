"""Result of a job: rows, error table, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from batchflow.checkpoint.destination import Destination
from batchflow.combiner.error_table import _LOOK, _SHOWN, ErrorTable, describe_errors
from batchflow.combiner.failure_notice import FailureNotice
from batchflow.combiner.output_reader import (
    csv_scanner,
    json_scanner,
    json_table,
    json_values,
    open_dataset,
    unread_rows,
    unreadable_output,
)
from batchflow.errors import FailedRecordsError, UsageError
from batchflow.io.arrow.convert import table_to_values
from batchflow.io.arrow.rows import Rows
from batchflow.io.stores import Uri
from batchflow.reporting.export import read, save
from batchflow.reporting.report import Report

if TYPE_CHECKING:
    import os
    from pathlib import Path

    import pyarrow as pa


class Result:
    """Result of a job.

    Offers the Arrow PyCapsule stream, so ``duckdb.from_arrow(result)``, ``polars.DataFrame(result)``
    and ``pyarrow.table(result)`` take it as it is.

    Attributes
    ----------
    report : Report
        Rows in, out and failed, seconds, speed-up, memory.

    Parameters
    ----------
    errors, report
        What failed, what was done.
    rows
        Of a result in memory.
    destination
        Of a result on disk.
    schema
        Of a result on disk; without it CSV and JSON Lines are read as what they look like.
    told
        Gives what its run was like, of a result in memory.
    warns
        Whether to warn when rows are used although records failed and nobody has looked at the errors.
    tabular
        The function returned tables, whose rows have the columns of all of them, however the input was cut.
    """

    def __init__(
        self,
        errors: ErrorTable,
        report: Report,
        rows: Sequence[Rows] = (),
        destination: Destination | None = None,
        schema: pa.Schema | None = None,
        told: Callable[[], Mapping[str, Any]] | None = None,
        *,
        warns: bool = False,
        tabular: bool = False,
    ) -> None:
        self._errors = errors
        self.report = report
        self._rows = list(rows)
        self._destination = destination
        self._schema = schema
        self._told = told
        self._tabular = tabular
        self._table: pa.Table | None = None
        self._job: Any = None
        """Job that wrote the output, if it is on disk."""
        self._notice = FailureNotice(self._unseen if warns and errors.rows else None)

    def _unseen(self) -> str:
        """Return the warning about errors that were not looked at."""
        return f"{describe_errors(self._errors.table())}; {_LOOK.format(name='result')}"

    @property
    def errors(self) -> pa.Table:
        """The error table: one row for each record or chunk that failed, and why, in input order."""
        self._notice.dismiss()
        return self._errors.table()

    @property
    def path(self) -> Path | str | None:
        """Path or URI of the output; ``None`` for a result in memory."""
        if self._destination is None:
            return None
        path = self._destination.path
        return str(path) if isinstance(path, Uri) else path

    @property
    def table(self) -> pa.Table:
        """All rows as one Arrow table, in input order; an output on disk is read.

        Raises
        ------
        SchemaError
            If the function gave values that no table holds, or types that do not go together.
        OutputError
            If the output is damaged.
        """
        self._notice.warn()
        if self._destination is not None:
            return self._read(self._destination)
        if self._table is None:
            self._table = Rows(segment for rows in self._rows for segment in rows.segments).table()
        return self._table

    @property
    def values(self) -> list[Any]:
        """Return values of the function in input order: dicts, scalars, or any other objects."""
        self._notice.warn()
        if self._destination is not None and self._destination.format == "jsonl":
            return json_values(self._destination, self._schema)
        if self._destination is not None or self._tabular:
            return table_to_values(self.table)
        return Rows(segment for rows in self._rows for segment in rows.segments).values()

    def __len__(self) -> int:
        if self._destination is not None:
            return self.report.rows_out
        return sum(len(segment) for rows in self._rows for segment in rows.segments)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return the rows as an Arrow C stream; an output on disk is read as it is consumed."""
        self._notice.warn()
        if self._destination is not None:
            return self._scanner(self._destination).to_reader().__arrow_c_stream__(requested_schema)
        return self.table.__arrow_c_stream__(requested_schema)  # type: ignore[no-untyped-call]

    def _read(self, destination: Destination) -> pa.Table:
        import pyarrow as pa

        try:
            table: pa.Table = self._scanner(destination).to_table()
        except pa.ArrowInvalid as error:
            if destination.format == "jsonl":  # lines whose text Arrow does not parse
                return json_table(destination, self._schema)
            raise unreadable_output(destination, error) from error
        return table

    def _scanner(self, destination: Destination) -> Any:
        """Return the `pyarrow.dataset.Scanner` of an output on disk."""
        if destination.format in ("parquet", "arrow"):  # these tell their columns and types themselves
            return open_dataset(destination, destination.format).scanner()
        if self.report.rows_out == 0 or (self._schema is not None and not self._schema.names):
            return unread_rows(self.report.rows_out, self._schema)
        if destination.format == "csv":
            return csv_scanner(destination, self._schema)
        return json_scanner(destination, self._schema)

    def save_report(self, path: str | os.PathLike[str]) -> None:
        """Write the report: one page as ``.html``, values as ``.json``, a trace as ``.trace.json``.

        The trace is for ``chrome://tracing`` and Perfetto. Of an output on disk it is that of its last run,
        which is in its metadata folder as well (``.clean_batchflow/``, next to ``clean/``).

        Raises
        ------
        UsageError
            If the suffix is none of these, or the output has no report.
        """
        if self._destination is not None:
            save(read(self._destination.meta), path)
        elif self._told is not None:
            save(self._told(), path)

    def raise_for_errors(self) -> Self:
        """Return the result itself if nothing failed.

        Raises
        ------
        FailedRecordsError
            If a record failed; it carries the error table.
        """
        if self.errors.num_rows:
            raise FailedRecordsError(describe_errors(self.errors), self.errors)
        return self

    def retry_failed(self, fn: Callable[..., Any] | None = None, *, version: str | None = None) -> Result:
        """Retry only the failed records of an output, with all options of its job.

        Parameters
        ----------
        fn
            The function, if it was fixed; by default that of the job.
        version
            Name of the function; one that was changed needs a new one.

        Returns
        -------
        Result
            Of the whole output, with what now succeeded in its place.

        Raises
        ------
        UsageError
            If the rows are in memory.
        """
        if self._job is None:
            message = "only an output on disk can be retried: run the job with into="
            raise UsageError(message)
        changed = {"fn": fn, "version": version}
        job = replace(self._job, **{name: value for name, value in changed.items() if value is not None})
        result: Result = job.retry_failed()
        return result

    def _repr_html_(self) -> str:
        """Return the notebook view: summary, first rows, first errors."""
        from batchflow.reporting.notebook import line, page, table

        where = f"in {self.path}" if self.path else "in memory"
        errors = self._errors.table().select(["source", "record", "phase", "error_type", "message"])
        return page(
            line(f"Result {where}"),
            self.report._repr_html_(),
            self._rows_html(),
            table("error", errors.num_rows, errors.slice(0, _SHOWN).to_pylist()),
        )

    def _rows_html(self) -> str:
        from batchflow.reporting.notebook import ROWS, line, table

        count = len(self)
        try:
            if self._destination is None:
                first = Rows(segment for rows in self._rows for segment in rows.segments).head(ROWS)
            else:
                first = table_to_values(self._scanner(self._destination).head(ROWS))
        except Exception as error:
            return line(f"its {count:,} rows cannot be read: {error}")
        if count and not first:
            return line(f"its {count:,} rows cannot be read any more")
        return table("row", count, first)

    def __repr__(self) -> str:
        where = f" in {self.path}" if self.path else ""
        return f"<Result{where}: {str(self.report).partition(chr(10))[0]}>"

    def __str__(self) -> str:
        return str(self.report)
