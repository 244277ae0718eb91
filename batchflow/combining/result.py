"""What a job gives back: rows, the error table, the report."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from batchflow.combining.errors_table import ErrorTable
from batchflow.errors import FailedRecordsError
from batchflow.formats import format_of
from batchflow.papers import read, save
from batchflow.plan import Destination
from batchflow.printable import printable
from batchflow.report import Report
from batchflow.rows import Rows
from batchflow.stores import Uri, filesystem
from batchflow.tables import table_to_values

if TYPE_CHECKING:
    import os
    from pathlib import Path

    import pyarrow as pa

BLOCK = 64 << 20
"""Bytes of CSV or JSON Lines parsed at a time at most; no row may be larger."""

_SHOWN = 5
"""Errors that are shown in a notebook."""


class Result:
    """What a job gave back.

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
    """

    def __init__(
        self,
        errors: ErrorTable,
        report: Report,
        rows: Sequence[Rows] = (),
        destination: Destination | None = None,
        schema: pa.Schema | None = None,
        told: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self._errors = errors
        self.report = report
        self._rows = list(rows)
        self._destination = destination
        self._schema = schema
        self._told = told
        self._table: pa.Table | None = None

    @property
    def errors(self) -> pa.Table:
        """The error table: one row for each record or chunk that failed, and why, in input order."""
        return self._errors.table()

    @property
    def path(self) -> Path | str | None:
        """The folder or file that was written, or its URI; ``None`` for a result in memory."""
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
        """
        if self._destination is not None:
            table: pa.Table = self._scanner(self._destination).to_table()
            return table
        if self._table is None:
            self._table = Rows(segment for rows in self._rows for segment in rows.segments).table()
        return self._table

    @property
    def values(self) -> list[Any]:
        """What the function gave back, in input order: dicts, scalars, or any other objects."""
        if self._destination is not None:
            return table_to_values(self.table)
        return Rows(segment for rows in self._rows for segment in rows.segments).values()

    def __len__(self) -> int:
        if self._destination is not None:
            return self.report.rows_out
        return sum(len(segment) for rows in self._rows for segment in rows.segments)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Return the rows as an Arrow C stream; an output on disk is read as it is consumed."""
        if self._destination is not None:
            return self._scanner(self._destination).to_reader().__arrow_c_stream__(requested_schema)
        return self.table.__arrow_c_stream__(requested_schema)  # type: ignore[no-untyped-call]

    def _scanner(self, destination: Destination) -> Any:
        """Return what reads an output on disk, a `pyarrow.dataset.Scanner`."""
        if destination.format in ("parquet", "arrow"):  # these tell their columns and types themselves
            return _dataset(destination, destination.format).scanner()
        if self.report.rows_out == 0 or (self._schema is not None and not self._schema.names):
            return _unread(self.report.rows_out, self._schema)
        if destination.format == "csv":
            return _csv(destination, self._schema)
        return _json(destination, self._schema)

    def save_report(self, path: str | os.PathLike[str]) -> None:
        """Write what the run was like: one page as ``.html``, values as ``.json``, a trace as ``.trace.json``.

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
            raise FailedRecordsError(tell(self.errors), self.errors)
        return self

    def _repr_html_(self) -> str:
        """Show the result in a notebook: what was done, the first rows, the first errors."""
        from batchflow.notebook import line, page, table

        where = f"in {self.path}" if self.path else "in memory"
        errors = self.errors.select(["source", "record", "phase", "error_type", "message"])
        return page(
            line(f"Result {where}"),
            self.report._repr_html_(),
            self._rows_html(),
            table("error", errors.num_rows, errors.slice(0, _SHOWN).to_pylist()),
        )

    def _rows_html(self) -> str:
        from batchflow.notebook import ROWS, line, table

        count = len(self)
        try:
            if self._destination is None:
                first = Rows(segment for rows in self._rows for segment in rows.segments).head(ROWS)
            else:
                first = table_to_values(self._scanner(self._destination).head(ROWS))
        except Exception as error:  # noqa: BLE001 - the output was removed, say: what is known is shown all the same
            return line(f"its {count:,} rows cannot be read: {error}")
        if count and not first:
            return line(f"its {count:,} rows cannot be read any more")
        return table("row", count, first)

    def __repr__(self) -> str:
        where = f" in {self.path}" if self.path else ""
        return f"<Result{where}: {str(self.report).partition(chr(10))[0]}>"

    def __str__(self) -> str:
        return str(self.report)


def _files(destination: Destination) -> dict[str, int | None]:
    """Return file or parts, with their sizes, in the order of their numbers, which outgrow their five digits."""
    path = destination.path
    if destination.one_file:
        return {str(path): destination.store.size(path)}
    suffix = format_of(destination.format).suffix
    parts = {
        name: size for name, size in destination.store.sizes(path).items()
        if re.match(r"part-\d", name) and name.endswith(suffix)
    }  # fmt: skip
    return {str(path / name): parts[name] for name in sorted(parts, key=lambda name: (len(name), name))}


def _dataset(destination: Destination, kind: Any, schema: pa.Schema | None = None) -> Any:
    import pyarrow.dataset as ds

    files = list(_files(destination))
    if not isinstance(destination.path, Uri):
        return ds.dataset(files, schema, kind)
    system = filesystem(files[0])[0] if files else None
    return ds.dataset([filesystem(file)[1] for file in files], schema, kind, filesystem=system)


def _unread(count: int, schema: pa.Schema | None) -> Any:
    """Return a scanner of rows that text does not show: there are none, or they have no columns."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    bare = pa.table({"": pa.nulls(count)}).select([])
    return ds.dataset(schema.empty_table() if schema is not None and schema.names else bare).scanner()


def _block(destination: Destination) -> int:
    """Return the bytes that are parsed at a time: a row must fit into them, and Arrow's own 1 MB is soon full."""
    return max(1, min(BLOCK, max(size or 0 for size in _files(destination).values())))


def _csv(destination: Destination, schema: pa.Schema | None) -> Any:
    import pyarrow.csv as pacsv
    import pyarrow.dataset as ds

    kind = ds.CsvFileFormat(
        pacsv.ParseOptions(newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(null_values=[""], strings_can_be_null=False),
        read_options=pacsv.ReadOptions(block_size=_block(destination)),
    )
    return _dataset(destination, kind, schema).scanner()


def _json(destination: Destination, schema: pa.Schema | None) -> Any:
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.json as pajson

    kind = ds.JsonFileFormat(read_options=pajson.ReadOptions(block_size=_block(destination)))
    if schema is None:
        return _dataset(destination, kind).scanner()
    parsed = pa.schema([(field.name, _leaves(field.type, _parsed)) for field in schema])
    columns = {field.name: ds.field(field.name) for field in schema}
    for field in parsed:
        shown = _leaves(schema.field(field.name).type, _shown)
        if shown != field.type:
            columns[field.name] = columns[field.name].cast(shown)
    return _dataset(destination, kind, parsed).scanner(columns=columns)


def _leaves(kind: Any, change: Callable[[Any], Any]) -> Any:
    """Return a type, nested or not, with what its lists and structs hold at last changed."""
    import pyarrow as pa

    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind):
        made = pa.large_list if types.is_large_list(kind) and change is _shown else pa.list_
        return made(_leaves(kind.value_type, change))
    if types.is_struct(kind):
        return pa.struct([field.with_type(_leaves(field.type, change)) for field in kind])
    return change(kind)


def _parsed(kind: Any) -> Any:
    """Return the type as which Arrow's JSON reader takes a cell that our writer made of another one."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return _parsed(kind.value_type)
    return pa.string() if types.is_date(kind) else _shown(kind)


def _shown(kind: Any) -> Any:
    """Return the type of a cell as JSON shows it: bytes (in base 64), times of day and durations are text."""
    import pyarrow as pa

    types = pa.types
    text = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_time, types.is_duration)
    return pa.string() if any(is_kind(kind) for is_kind in text) else kind


def tell(errors: pa.Table) -> str:
    """Return in one line how many records failed, and the first one as an example."""
    first = errors.slice(0, 1).to_pylist()[0]
    number = f", record {first['record']}" if first["record"] is not None else ""
    more = f"{errors.num_rows:,} records failed, the first one" if errors.num_rows > 1 else "1 record failed"
    step = f"{first['step']}: " if first.get("step", first["source"]) != first["source"] else ""
    what = f"{step}{first['source']}{number}: {first['error_type']}: {first['message']} ({first['phase']})"
    return f"{more}: {printable(what)}"
