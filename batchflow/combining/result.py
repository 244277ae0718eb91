"""What a job gives back: rows, the error table, the report."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from shlex import quote
from typing import TYPE_CHECKING, Any, Self

from batchflow.combining.errors_table import ErrorTable
from batchflow.combining.notice import FailureNotice
from batchflow.errors import FailedRecordsError, OutputError, UsageError
from batchflow.formats import format_of
from batchflow.formats.lines import is_noted
from batchflow.papers import read, save
from batchflow.plan import Destination
from batchflow.printable import printable
from batchflow.report import Report
from batchflow.rows import Rows
from batchflow.schemas import concat
from batchflow.sources.paths import open_input
from batchflow.stores import Uri, filesystem
from batchflow.tables import VALUE, rows_to_table, table_to_values

if TYPE_CHECKING:
    import os
    from pathlib import Path

    import pyarrow as pa

BLOCK = 64 << 20
"""Bytes of CSV or JSON Lines parsed at a time at most; no row may be larger."""

_LOOK = "{name}.errors lists them, and max_errors= says how many may fail without this warning"
"""Ends a warning."""
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
        """That gave it, of an output on disk."""
        self._notice = FailureNotice(self._unseen if warns and errors.rows else None)

    def _unseen(self) -> str:
        """Return the warning about failures that nobody has looked at."""
        return f"{tell(self._errors.table())}; {_LOOK.format(name='result')}"

    @property
    def errors(self) -> pa.Table:
        """The error table: one row for each record or chunk that failed, and why, in input order."""
        self._notice.dismiss()
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
        """What the function gave back, in input order: dicts, scalars, or any other objects."""
        self._notice.warn()
        if self._destination is not None and self._destination.format == "jsonl":
            return _json_values(self._destination, self._schema)
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
                return _json_table(destination, self._schema)
            raise _unreadable(destination, error) from error
        return table

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

    def retry_failed(self, fn: Callable[..., Any] | None = None, *, version: str | None = None) -> Result:
        """Run again only what failed of an output, with all options of its job.

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
        """Show the result in a notebook: what was done, the first rows, the first errors."""
        from batchflow.notebook import line, page, table

        where = f"in {self.path}" if self.path else "in memory"
        errors = self._errors.table().select(["source", "record", "phase", "error_type", "message"])
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


def _files(destination: Destination) -> dict[str, int | None]:
    """Return file or parts, with their sizes, in the order of their numbers, which outgrow their five digits."""
    path = destination.path
    if destination.one_file:
        return {str(path): destination.store.size(path)}
    suffix = format_of(destination.format).suffix
    parts = {
        name: size
        for name, size in destination.store.sizes(path).items()
        if re.match(r"part-\d", name) and name.endswith(suffix)
    }
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
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.dataset as ds

    # The null of a lone column is a quoted empty cell, as is the empty text: a blank line would be no record.
    quoted_null = schema is not None and len(schema) == 1 and not _is_text(schema.field(0).type)
    kind = ds.CsvFileFormat(
        pacsv.ParseOptions(newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(
            null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=quoted_null
        ),
        read_options=pacsv.ReadOptions(block_size=_block(destination)),
    )
    if schema is None:
        return _dataset(destination, kind).scanner()
    parsed = pa.schema([(field.name, _parsed_csv(field.type)) for field in schema])
    columns = {field.name: ds.field(field.name) for field in schema}
    for field in parsed:
        if field.type != schema.field(field.name).type:
            columns[field.name] = columns[field.name].cast(schema.field(field.name).type)
    return _dataset(destination, kind, parsed).scanner(columns=columns)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    kinds = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return any(is_kind(kind) for is_kind in kinds)


def _parsed_csv(kind: Any) -> Any:
    """Return the type as which Arrow's CSV reader takes a cell."""
    import pyarrow as pa

    if pa.types.is_float16(kind):
        return pa.float32()
    return pa.string() if pa.types.is_decimal256(kind) else kind


def _json(destination: Destination, schema: pa.Schema | None) -> Any:
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.json as pajson

    if schema is None or not is_noted(schema):
        return ds.dataset(_json_table(destination, schema)).scanner()
    kind = ds.JsonFileFormat(read_options=pajson.ReadOptions(block_size=_block(destination)))
    parsed = pa.schema([(field.name, _leaves(field.type, _parsed)) for field in schema])
    columns = {field.name: ds.field(field.name) for field in schema}
    for field in parsed:
        shown = _leaves(schema.field(field.name).type, _shown)
        if shown != field.type:
            columns[field.name] = columns[field.name].cast(shown)
    return _dataset(destination, kind, parsed).scanner(columns=columns)


def _unreadable(destination: Destination, error: Exception) -> OutputError:
    reason = printable(str(error).partition("\n")[0])
    path = destination.path
    return OutputError(f"cannot read {path}: {reason}; find the damage: batchflow verify {quote(str(path))}")


_DECODED_BYTES = 8 << 20


def _json_rows(destination: Destination) -> Iterator[list[Any]]:
    """Yield the objects on the lines of an output, some thousand at a time."""
    import msgspec

    decoder = msgspec.json.Decoder()
    try:
        for name in _files(destination):
            with open_input(name) as file:
                rest = b""
                while data := file.read(_DECODED_BYTES):
                    text, feed, rest = (rest + data).rpartition(b"\n")
                    yield decoder.decode_lines(text + feed)
                yield decoder.decode_lines(rest)
    except msgspec.DecodeError as error:
        raise _unreadable(destination, error) from error


def _json_table(destination: Destination, schema: pa.Schema | None) -> pa.Table:
    """Return the lines of an output as a table, as Python reads them: no one type is known of each column."""
    import pyarrow as pa

    table = concat(rows_to_table(rows) for rows in _json_rows(destination))
    for field in schema or ():
        at = table.schema.get_field_index(field.name)
        if at >= 0 and (column := _typed(table.column(at), field.type)) is not None:
            table = table.set_column(at, pa.field(field.name, column.type), column)
    return table


def _typed(column: Any, kind: Any) -> Any:
    """Return a column of times, dates or decimals, which JSON shows as text; ``None`` if it is no such column."""
    import pyarrow as pa

    types = pa.types
    shown = types.is_timestamp(kind) or types.is_date(kind) or types.is_decimal(kind)
    if not (shown and types.is_string(column.type)):
        return None
    try:
        return column.cast(kind)
    except pa.ArrowException:
        return None


def _json_values(destination: Destination, schema: pa.Schema | None) -> list[Any]:
    """Return what the function returned, with the keys that each record has; times and dates by their column."""
    import pyarrow as pa

    rows = [row for some in _json_rows(destination) for row in some]
    for field in schema or ():
        having = [row for row in rows if row.get(field.name) is not None]
        texts = [row[field.name] for row in having]
        if set(map(type, texts)) != {str}:
            continue
        column = _typed(pa.array(texts, pa.string()), field.type)
        for row, value in zip(having, texts if column is None else column.to_pylist(), strict=True):
            row[field.name] = value
    if rows and all(row.keys() == {VALUE} for row in rows):
        return [row[VALUE] for row in rows]
    return rows


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
    if types.is_float16(kind):
        return pa.float32()
    return pa.string() if types.is_date(kind) else _shown(kind)


def _shown(kind: Any) -> Any:
    """Return the type of a cell as JSON shows it: bytes (in base 64), times of day and durations are text."""
    import pyarrow as pa

    types = pa.types
    text = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_time, types.is_duration)
    return pa.string() if any(is_kind(kind) for is_kind in text) else kind


def unseen_in_flow(errors: pa.Table) -> str:
    """Return the warning about failures of a flow that nobody has looked at."""
    return f"{tell(errors)}; {_LOOK.format(name='run')}"


def tell(errors: pa.Table) -> str:
    """Return in one line how many records failed, and the first one as an example."""
    first = errors.slice(0, 1).to_pylist()[0]
    number = f", record {first['record']}" if first["record"] is not None else ""
    more = f"{errors.num_rows:,} records failed, the first one" if errors.num_rows > 1 else "1 record failed"
    step = f"{first['step']}: " if first.get("step", first["source"]) != first["source"] else ""
    what = f"{step}{first['source']}{number}: {first['error_type']}: {first['message']} ({first['phase']})"
    return f"{more}: {printable(what)}"
