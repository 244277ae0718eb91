"""Error table: one row for each failed record or chunk, with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from batchflow.core.outcomes import Failure, Failures
from batchflow.core.text import printable

if TYPE_CHECKING:
    import pyarrow as pa


_BATCH = 1000


@cache
def error_schema() -> pa.Schema:
    """Return the schema of the error table."""
    import pyarrow as pa

    text, whole = pa.string(), pa.int64()
    columns: list[tuple[str, pa.DataType]] = [
        ("source", text),
        ("start", whole),
        ("stop", whole),
        ("record", whole),
        ("payload", text),
        ("phase", text),
        ("error_type", text),
        ("message", text),
        ("traceback", text),
        ("attempts", whole),
        ("worker", text),
        ("seconds", pa.float64()),
    ]
    return pa.schema(columns)


class ErrorTable:
    """Collector of failures, converted to Arrow a thousand at a time: 100 bytes a row and no Python object."""

    def __init__(self) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._recent: list[Failures] = []
        self._waiting = 0
        """Number of rows not yet converted."""
        self.rows: int = 0

    def add(self, failures: Sequence[Failure]) -> None:
        """Add failures."""
        if not failures:
            return
        self._recent.append(Failures.of(failures))
        self._waiting += len(failures)
        self.rows += len(failures)
        if self._waiting >= _BATCH:
            self._pack()

    def _pack(self) -> None:
        import pyarrow as pa

        columns = (list(chain(*parts)) for parts in zip(*(one.columns for one in self._recent), strict=True))
        # The last field of a failure is no column.
        arrays = [_array(cells, field.type) for cells, field in zip(columns, error_schema(), strict=False)]
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=error_schema()))
        self._recent, self._waiting = [], 0

    def table(self) -> pa.Table:
        """Return all rows as one table, in input order."""
        import pyarrow as pa

        if self._recent:
            self._pack()
        return pa.Table.from_batches(self._batches, schema=error_schema())


def joined(errors: Sequence[tuple[str, pa.Table]]) -> pa.Table:
    """Return the error table of a flow from those of its steps, with the step name as first column."""
    import pyarrow as pa

    schema = pa.schema([pa.field("step", pa.string()), *error_schema()])
    tables = [table.add_column(0, schema.field(0), _names(step, table.num_rows)) for step, table in errors]
    return pa.concat_tables([schema.empty_table(), *tables])


def _names(step: str, count: int) -> Any:
    import pyarrow as pa

    return pa.chunked_array([[step] * count], pa.string())


def _array(cells: Sequence[Any], kind: pa.DataType) -> pa.Array[Any]:
    import pyarrow as pa

    try:
        return pa.array(cells, kind)
    except UnicodeEncodeError:
        return pa.array([_clean(cell) for cell in cells], kind)


def _clean(cell: Any) -> Any:
    """Return a cell that Arrow accepts: text may hold an unpaired surrogate, which UTF-8 cannot encode."""
    if isinstance(cell, str) and not cell.isascii():
        return cell.encode("utf-8", "backslashreplace").decode()
    return cell


_LOOK = "{name}.errors lists them, and max_errors= says how many may fail without this warning"
"""Last sentence of the warning."""
_SHOWN = 5
"""Maximum errors shown in a notebook."""


def unseen_errors_of_flow(errors: pa.Table) -> str:
    """Return the warning about errors of a flow that were not looked at."""
    return f"{describe_errors(errors)}; {_LOOK.format(name='run')}"


def describe_errors(errors: pa.Table) -> str:
    """Return one line with the number of failed records and the first error as an example."""
    first = errors.slice(0, 1).to_pylist()[0]
    number = f", record {first['record']}" if first["record"] is not None else ""
    more = f"{errors.num_rows:,} records failed, the first one" if errors.num_rows > 1 else "1 record failed"
    step = f"{first['step']}: " if first.get("step", first["source"]) != first["source"] else ""
    what = f"{step}{first['source']}{number}: {first['error_type']}: {first['message']} ({first['phase']})"
    return f"{more}: {printable(what)}"
