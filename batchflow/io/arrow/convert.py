"""Rows as Python values and as tables.

`pyarrow` is imported inside the functions: it takes 0.15 s, which the driver need not wait for
before its workers have started.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from batchflow.core.text import one
from batchflow.errors import SchemaError
from batchflow.io.arrow.arrays import is_convertible, kinds_of, to_array
from batchflow.io.arrow.columns import column_values
from batchflow.io.arrow.schema import bare, table_without_views

if TYPE_CHECKING:
    import pyarrow as pa

VALUE = "value"
"""Column of the rows that scalars become."""

_SCALARS = {bool, int, float, str, bytes, bytearray, list, type(None)}
_SCALAR_NAMES = {
    ("datetime", "date"),
    ("datetime", "datetime"),
    ("datetime", "time"),
    ("datetime", "timedelta"),
    ("decimal", "Decimal"),
    ("uuid", "UUID"),
}
"""Of modules that a worker need not load to know that it has none of their values."""
_ROWS = {dict, OrderedDict, defaultdict}


def is_tabular(value: Any) -> bool:
    """Whether a value is an Arrow table or record batch."""
    return hasattr(value, "num_rows") and hasattr(value, "schema")


def is_frame(value: Any) -> bool:
    """Whether a value is a table of whatever library: Arrow's, pandas', Polars'."""
    return is_tabular(value) or hasattr(value, "iloc") or hasattr(value, "__arrow_c_stream__")


def is_row(kind: type) -> bool:
    """Whether values of a type become rows, a column for each key."""
    return kind in _ROWS or issubclass(kind, Mapping)


def is_scalar(kind: type) -> bool:
    """Whether values of a type become rows of the one column ``value``."""
    if kind in _SCALARS or kind.__module__ == "numpy" or (kind.__module__, kind.__name__) in _SCALAR_NAMES:
        return True
    return is_convertible(kind) and not is_row(kind) and not issubclass(kind, tuple | range)


class NotTabularError(TypeError):
    """A value that is neither a row nor a scalar; it comes back as it is, outside of any table."""


def values_to_table(values: Sequence[Any]) -> pa.Table:
    """Return what a function gave back for some records as a table.

    Parameters
    ----------
    values
        Mappings, which become rows, and scalars and lists, which become rows of the column ``value``.

    Raises
    ------
    NotTabularError
        If a value is of another type.
    SchemaError
        If Arrow has no type for a column.
    """
    kinds = kinds_of(values)
    if kinds <= {dict}:
        return rows_to_table(values)
    if all(map(is_scalar, kinds)):
        return _columns({VALUE: values}, len(values))
    return rows_to_table(as_rows(values, kinds))


def as_rows(values: Sequence[Any], kinds: Iterable[type]) -> list[Any]:
    """Return what a function gave back as mappings; scalars and lists become rows of the column ``value``.

    Parameters
    ----------
    kinds
        Types of the values.

    Raises
    ------
    NotTabularError
        If a value is of another type.
    """
    for kind in kinds:
        if not is_row(kind) and not is_scalar(kind):
            name = one(kind.__qualname__)
            message = f"the function returned {name}, which is neither a mapping nor a scalar nor a list"
            raise NotTabularError(message)
    return [value if is_row(type(value)) else {VALUE: value} for value in values]


_FILE_DEPTH = 4


def refuse_open_files(values: Sequence[Any]) -> None:
    """Raise `NotTabularError` if a value is an open file, or holds one in mappings and lists.

    A copy of it in another process would be closed, or another file.
    """
    from io import IOBase

    for _ in range(_FILE_DEPTH):
        kinds = kinds_of(values)
        for kind in kinds:
            if issubclass(kind, IOBase) or kind.__module__ == "tempfile":
                name = kind.__qualname__
                message = f"the function returned an open file ({name}): return its content or its name"
                raise NotTabularError(message)
        rows = set(filter(is_row, kinds))
        if (rows | _SEQUENCES).isdisjoint(kinds):
            return
        holders = [value.values() for value in values if type(value) in rows] if rows else []
        holders += [value for value in values if type(value) in _SEQUENCES]
        values = list(chain.from_iterable(holders))


_SEQUENCES = {list, tuple}


_EXACT = {int, float, str, bool, bytes}
"""Types of which a column of one, with ``None``, gives back just the objects that it was made of."""


def exact_table(values: Sequence[Any]) -> pa.Table | None:
    """Return values as a table if it gives back exactly these, `table_to_values`; else ``None``.

    So it does for rows with the same keys in the same order, and one exact type in each column.
    """
    kinds = kinds_of(values)
    if kinds != {dict}:
        return _exact_columns([VALUE], [values]) if kinds & _EXACT else None
    names = list(values[0])
    if names == [VALUE] or kinds_of(names) != {str}:
        return None
    columns = _uniform_columns(names, values)
    return None if columns is None else _exact_columns(names, columns)


def _uniform_columns(names: Sequence[Any], rows: Sequence[dict[Any, Any]]) -> list[list[Any]] | None:
    """Return the columns of rows that have the same keys in the same order, else ``None``.

    No key is in a row twice. So if all keys, one row after the other, are the names again and again, each row
    has just these. This takes a third of the time of a look at each row.
    """
    if not names or list(chain.from_iterable(rows)) != list(names) * len(rows):
        return None
    cells = list(chain.from_iterable(map(dict.values, rows)))
    return [cells[index :: len(names)] for index in range(len(names))]


def _exact_columns(names: Sequence[str], columns: Sequence[Sequence[Any]]) -> pa.Table | None:
    found = [kinds_of(cells) - {type(None)} for cells in columns]
    if not all(len(kinds) < 2 and kinds <= _EXACT for kinds in found):
        return None
    import pyarrow as pa

    types = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_(), bytes: pa.binary()}
    try:
        arrays = [
            pa.array(cells, types[kinds.pop()]) if kinds else pa.nulls(len(cells))
            for cells, kinds in zip(columns, found, strict=True)
        ]
    except (OverflowError, ValueError):  # 2**63, half of a surrogate pair
        return None
    return pa.Table.from_arrays(arrays, names=list(names))


def rows_to_table(rows: Sequence[Any]) -> pa.Table:
    """Return mappings as a table; a key that some lack is null there, columns in order of appearance."""
    import pyarrow as pa

    if not rows:
        return pa.table({})
    names = list(rows[0])
    if kinds_of(rows) == {dict} and (columns := _uniform_columns(names, rows)):
        return _columns(dict(zip(names, columns, strict=True)), len(rows))
    seen = dict.fromkeys(name for row in rows for name in row)
    return _columns({name: [row.get(name) for row in rows] for name in seen}, len(rows))


def _columns(columns: Mapping[Any, Sequence[Any]], count: int) -> pa.Table:
    import pyarrow as pa

    if not columns:  # rows without any column still count
        return bare(count)
    wrong = next((name for name in columns if not isinstance(name, str)), None)
    if wrong is not None:
        message = f"a row has the key {wrong!r}: names of columns are text"
        raise NotTabularError(message)
    arrays = []
    for name, cells in columns.items():
        try:
            arrays.append(to_array(cells))
        except (pa.ArrowException, OverflowError, TypeError, ValueError, NotImplementedError) as error:
            message = f"column {name!r}: {error}"
            raise SchemaError(message) from error
    return pa.Table.from_arrays(arrays, names=list(columns))


def readable_rows(table: pa.Table | pa.RecordBatch) -> tuple[list[dict[str, Any]], dict[int, SchemaError]]:
    """Return the rows of a table as dicts, and why some of them cannot be given, by index.

    A row that Python cannot hold exactly is ``{}`` in the list.
    """
    names = table.column_names
    if not names:
        return [{} for _ in range(table.num_rows)], {}
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        message = f"two columns are named {name!r}, and a record has each name once: use map_batches"
        return [{}] * table.num_rows, dict.fromkeys(range(table.num_rows), SchemaError(message))
    columns = []
    refused: dict[int, SchemaError] = {}
    for name, column in zip(names, table.columns, strict=True):
        values, bad = column_values(column)
        columns.append(values)
        for index, reason in bad.items():
            refused.setdefault(index, SchemaError(f"column {name!r} holds {reason}"))
    rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    for index in refused:
        rows[index] = {}
    return rows, refused


def row_as_text(table: pa.Table | pa.RecordBatch, index: int) -> dict[str, Any]:
    """Return a row for people to read, of which Python cannot hold every cell."""
    cells: dict[str, Any] = {}
    columns: Any = table.columns
    for name, column in zip(table.column_names, columns, strict=True):
        values, refused = column_values(column.slice(index, 1))
        cells[name] = str(column[index].type) if refused else values[0]
    return cells


def table_to_rows(table: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the rows of a table as dicts; 3 times as fast as `pyarrow.Table.to_pylist`.

    Raises
    ------
    SchemaError
        If Python has no value for a cell.
    """
    rows, refused = readable_rows(table)
    for error in refused.values():
        raise error
    return rows


def table_to_values(table: pa.Table) -> list[Any]:
    """Return what a function gave back: scalars where there is only the column ``value``, else dicts."""
    if table.column_names != [VALUE]:
        return table_to_rows(table)
    values, refused = column_values(table.column(0))
    for reason in refused.values():
        message = f"column {VALUE!r} holds {reason}"
        raise SchemaError(message)
    return values


def as_table(value: Any) -> pa.Table:
    """Return what a batch function gave back as a table.

    Accepts tables, record batches, dicts of arrays and whatever offers the Arrow PyCapsule interface.

    Raises
    ------
    NotTabularError
        If the value is none of these.
    """
    try:
        return table_without_views(_table(value))
    except (AttributeError, TypeError, ValueError, NotImplementedError) as error:
        reason = error  # Arrow's own errors are some of these
    message = (
        f"the function returned {one(type(value).__qualname__)} that is no table ({reason}); map_batches takes "
        "a pyarrow Table or RecordBatch, a dict of arrays, or a pandas or Polars frame"
    )
    raise NotTabularError(message)


def _with_index_columns(frame: Any) -> Any:
    """Return a pandas frame with the named levels of its index as columns: after a group-by they are data.

    A level without a name only numbers the rows.
    """
    names = getattr(getattr(frame, "index", None), "names", ())
    levels = [name for name in names if name is not None and name not in frame.columns]
    return frame.reset_index(level=levels) if levels else frame


def _table(value: Any) -> pa.Table:
    import pyarrow as pa

    if isinstance(value, pa.Table):
        return value
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value])
    if hasattr(value, "iloc"):
        frame = _with_index_columns(value)
        return pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    return pa.table(dict(value) if isinstance(value, Mapping) else value)
