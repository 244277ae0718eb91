"""The one place where Python values become Arrow, and tables of different schemas become one.

`pyarrow` is imported inside the functions: it takes 0.15 s, which the driver need not wait for
before its workers have started.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchflow.errors import SchemaError
from batchflow.marks import STRENGTH, WORDS, Marks, at_path, inside, loses, marks_of, with_marks
from batchflow.printable import printable
from batchflow.wording import one

if TYPE_CHECKING:
    import pyarrow as pa

VALUE = "value"
"""Column of the rows that scalars become."""

_SCALARS = {bool, int, float, str, bytes, bytearray, list, type(None)}
_SCALAR_NAMES = {
    ("datetime", "date"), ("datetime", "datetime"), ("datetime", "time"), ("datetime", "timedelta"),
    ("decimal", "Decimal"), ("uuid", "UUID"),
}  # fmt: skip
"""Of modules that a worker need not load to know that it has none of their values."""
_ROWS = {dict, OrderedDict, defaultdict}


def is_tabular(value: Any) -> bool:
    """Whether a value is an Arrow table or record batch."""
    return hasattr(value, "num_rows") and hasattr(value, "schema")


def is_frame(value: Any) -> bool:
    """Whether a value is a table of whatever library: Arrow's, pandas', Polars'."""
    return is_tabular(value) or hasattr(value, "iloc") or hasattr(value, "__arrow_c_stream__")


def kinds_of(values: Sequence[Any]) -> set[type]:
    """Return the types of some values; where all are of one, as most are, in half the time of a plain set."""
    if len(values) == 0:  # an array has no truth
        return set()
    first = type(values[0])
    return {first} if list(map(type, values)).count(first) == len(values) else set(map(type, values))


def is_row(kind: type) -> bool:
    """Whether values of a type become rows, a column for each key."""
    return kind in _ROWS or issubclass(kind, Mapping)


def is_scalar(kind: type) -> bool:
    """Whether values of a type become rows of the one column ``value``."""
    return kind in _SCALARS or kind.__module__ == "numpy" or (kind.__module__, kind.__name__) in _SCALAR_NAMES


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
    for kind in kinds:
        if not is_row(kind) and not is_scalar(kind):
            name = one(kind.__qualname__)
            message = f"the function returned {name}, which is neither a mapping nor a scalar nor a list"
            raise NotTabularError(message)
    return rows_to_table([value if is_row(type(value)) else {VALUE: value} for value in values])


def rows_to_table(rows: Sequence[Any]) -> pa.Table:
    """Return mappings as a table; a key that some lack is null there, columns in order of appearance."""
    import pyarrow as pa

    if not rows:
        return pa.table({})
    names = list(rows[0])
    width = len(names)
    try:
        # Only of plain dicts is it known that a key which is not there raises.
        if kinds_of(rows) == {dict} and set(map(len, rows)) == {width}:
            return _columns({name: [row[name] for row in rows] for name in names}, len(rows))
    except KeyError:
        pass  # as many keys, but others
    seen = dict.fromkeys(name for row in rows for name in row)
    return _columns({name: [row.get(name) for row in rows] for name in seen}, len(rows))


def _columns(columns: Mapping[Any, Sequence[Any]], count: int) -> pa.Table:
    import pyarrow as pa

    if not columns:  # rows without any column still count
        return _bare(count)
    wrong = next((name for name in columns if not isinstance(name, str)), None)
    if wrong is not None:
        message = f"a row has the key {wrong!r}: names of columns are text"
        raise NotTabularError(message)
    arrays = []
    for name, cells in columns.items():
        try:
            arrays.append(_array(cells))
        except (pa.ArrowException, OverflowError, TypeError, ValueError) as error:
            message = f"column {name!r}: {error}"
            raise SchemaError(message) from error
    return pa.Table.from_arrays(arrays, names=list(columns))


def _array(cells: Sequence[Any]) -> Any:
    """Return cells as an array, but refuse those that Arrow would change without a word."""
    from datetime import datetime

    import pyarrow as pa

    array = pa.array(cells)
    if pa.types.is_binary(array.type):
        _refuse_mixed(cells, str, "text and bytes")
    elif pa.types.is_floating(array.type):
        _refuse_mixed(cells, bool, "numbers and truth values")
    elif pa.types.is_temporal(array.type):
        _refuse_mixed(cells, (int, float), "times and numbers")
    if pa.types.is_date32(array.type):
        _refuse_mixed(cells, datetime, "dates and datetimes")
    elif pa.types.is_timestamp(array.type) and array.null_count < len(array):
        zones = {getattr(cell, "tzinfo", None) is None for cell in cells if cell is not None}
        if len(zones) > 1:
            message = "datetimes with and without a time zone in one column"
            raise ValueError(message)
    return array


def _refuse_mixed(cells: Sequence[Any], kind: type | tuple[type, ...], what: str) -> None:
    if any(issubclass(cell, kind) for cell in kinds_of(cells)):
        message = f"{what} in one column"
        raise ValueError(message)


def _bare(count: int) -> pa.Table:
    """Return a table of some rows without any column."""
    import pyarrow as pa

    return pa.table({VALUE: pa.nulls(count)}).select([])


def table_to_rows(table: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the rows of a table as dicts; 3 times as fast as `pyarrow.Table.to_pylist`."""
    names = table.column_names
    columns = [column.to_pylist() for column in table.columns]
    if not names:
        return [{} for _ in range(table.num_rows)]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def table_to_values(table: pa.Table) -> list[Any]:
    """Return what a function gave back: scalars where there is only the column ``value``, else dicts."""
    if table.column_names == [VALUE]:
        values: list[Any] = table.column(0).to_pylist()
        return values
    return table_to_rows(table)


def as_table(value: Any) -> pa.Table:
    """Return what a batch function gave back as a table.

    Accepts tables, record batches, dicts of arrays and whatever offers the Arrow PyCapsule interface.

    Raises
    ------
    NotTabularError
        If the value is none of these.
    """
    try:
        return _without_views(_table(value))
    except (AttributeError, TypeError, ValueError) as error:
        reason = error
    message = (
        f"the function returned {one(type(value).__qualname__)} that is no table ({reason}); map_batches takes "
        "a pyarrow Table or RecordBatch, a dict of arrays, or a pandas or Polars frame"
    )
    raise NotTabularError(message)


def _table(value: Any) -> pa.Table:
    import pyarrow as pa

    if isinstance(value, pa.Table):
        return value
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value])
    if hasattr(value, "iloc"):  # pandas would add a column for its index
        return pa.Table.from_pandas(value, preserve_index=False).replace_schema_metadata(None)
    return pa.table(dict(value) if isinstance(value, Mapping) else value)


def _without_views(table: pa.Table) -> pa.Table:
    """Return a table without views: a slice of a view takes all of it along, and few programs read views."""
    import pyarrow as pa

    schema = pa.schema([field.with_type(_without_view(field.type)) for field in table.schema])
    return table if schema.equals(table.schema) else table.cast(schema)


def _without_view(kind: Any) -> Any:
    import pyarrow as pa

    types = pa.types
    if types.is_string_view(kind):
        return pa.large_string()
    if types.is_binary_view(kind):
        return pa.large_binary()
    if types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_without_view(kind.value_type)))
    if types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_without_view(kind.value_type)))
    if types.is_struct(kind):
        return pa.struct([field.with_type(_without_view(field.type)) for field in kind])
    return kind


def unify(known: pa.Schema | None, schema: pa.Schema, where: str = "") -> pa.Schema:
    """Return the narrowest schema that holds both without loss.

    Parameters
    ----------
    known, schema
        What came before, and what comes now.
    where
        Names the chunk in the message.

    Raises
    ------
    SchemaError
        If a column has two types that no type holds; the message names the column, the chunk and both.
    """
    import pyarrow as pa

    schema = _bare_of_foreign(schema)
    if known is None or known.equals(schema, check_metadata=True):
        return schema
    merged = _merged(known, schema)
    if merged is not None:
        return merged
    for field in schema:
        at = known.get_field_index(field.name)
        if at >= 0 and _merged(pa.schema([known.field(at)]), pa.schema([field])) is None:
            message = (
                f"column {field.name!r} is {_told(field)}{where and f' in {where}'}, but "
                f"{_told(known.field(at))} before: give it one type in the function"
            )
            raise SchemaError(message)
    message = f"the schema{where and f' of {where}'} has a column twice: {schema.names}"
    raise SchemaError(message)


def _bare_of_foreign(schema: pa.Schema) -> pa.Schema:
    """Return a schema without any metadata but our own marks."""
    import pyarrow as pa

    if any(each.metadata for each in (schema, *schema)):
        return pa.schema([with_marks(field, marks_of(field)) for field in schema])
    return schema


def _told(field: pa.Field[Any]) -> str:
    words = sorted({WORDS[mark] for mark in marks_of(field).values()})
    kind = printable(str(field.type))  # keys of records stand in it
    return f"{kind} with {' and '.join(words)}" if words else kind


def _merged(one: pa.Schema, other: pa.Schema) -> pa.Schema | None:
    """Return the schema that holds both, ``None`` where there is none."""
    import pyarrow as pa

    try:
        merged = pa.unify_schemas([one, other], promote_options="permissive")
    except pa.ArrowException:
        return None
    kinds = {field.name: field.type for field in merged}
    marks: dict[str, Marks] = {}
    for field in (*one, *other):
        if _confuses_text(field.type, kinds[field.name]):
            return None
        if (kind := _with_room(field.type, kinds[field.name])) is None:
            return None
        kinds[field.name] = kind
        for path, mark in marks_of(field).items():
            seen = marks.setdefault(field.name, {})
            seen[path] = max(mark, seen.get(path, mark), key=STRENGTH.index)
    if any(loses(mark, at_path(kinds[name], path)) for name, each in marks.items() for path, mark in each.items()):
        return None
    return pa.schema([with_marks(pa.field(name, kind), marks.get(name, {})) for name, kind in kinds.items()])


_DIGITS = {8: 3, 16: 5, 32: 10, 64: 19}
_MOST_DIGITS = 76


def _with_room(before: Any, after: Any) -> Any:
    """Return a type that a cast of whole numbers reaches: Arrow's union with decimals is a digit too short.

    ``None``: there is none.
    """
    import pyarrow as pa

    types = pa.types
    if held := inside(before):
        kinds = {name: _with_room(held.get(name, kind), kind) for name, kind in inside(after).items()}
        return None if None in kinds.values() else _rebuilt(after, kinds)
    if not (types.is_integer(before) and types.is_decimal(after)):
        return after
    digits = _DIGITS[before.bit_width] + (before == pa.uint64()) + after.scale
    if digits > _MOST_DIGITS:
        return None
    made = pa.decimal128 if max(digits, after.precision) <= 38 else pa.decimal256
    return after if digits <= after.precision else made(digits, after.scale)


def _rebuilt(kind: Any, held: Mapping[str | None, Any]) -> Any:
    """Return a type whose cells hold other types than those that `inside` told."""
    import pyarrow as pa

    types = pa.types
    if types.is_struct(kind):
        return pa.struct([field.with_type(held[field.name]) for field in kind])
    if types.is_map(kind):
        return pa.map_(kind.key_field.with_type(held["key"]), kind.item_field.with_type(held["value"]))
    field = kind.value_field.with_type(held[None])
    if types.is_fixed_size_list(kind):
        return pa.list_(field, kind.list_size)
    return pa.large_list(field) if types.is_large_list(kind) else pa.list_(field)


def _confuses_text(before: Any, after: Any) -> bool:
    """Whether text would become bytes, or exact numbers inexact: Arrow allows it and no reader expects it."""
    import pyarrow as pa

    types = pa.types
    if types.is_decimal(before) and types.is_floating(after):
        return True
    if held := inside(before):
        kinds = inside(after)
        return any(_confuses_text(kind, kinds[name]) for name, kind in held.items())
    return (types.is_string(before) or types.is_large_string(before)) and (
        types.is_binary(after) or types.is_large_binary(after)
    )


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table with the columns and types of a schema that `unify` made from it.

    Raises
    ------
    SchemaError
        If a value would be changed by its new type.
    """
    import pyarrow as pa

    if table.schema.equals(schema):
        return table
    columns = []
    for field in schema:
        at = table.schema.get_field_index(field.name)
        if at < 0:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        try:
            columns.append(table.column(at).cast(field.type))
        except pa.ArrowException as error:
            message = f"column {field.name!r} does not fit {field.type} without loss: {error}"
            raise SchemaError(message) from error
    if not columns:
        return table
    return pa.Table.from_arrays(columns, schema=schema)


def concat(tables: Iterable[pa.Table]) -> pa.Table:
    """Return tables one after the other as one, their schemas unified.

    Raises
    ------
    SchemaError
        If their schemas cannot be unified.
    """
    import pyarrow as pa

    filled = [table for table in tables if table.num_columns or table.num_rows]
    schema = None
    for at, table in enumerate(filled):
        schema = unify(schema, table.schema, f"chunk {at + 1}")
    if schema is None:
        return pa.table({})
    if not schema.names:
        return _bare(sum(table.num_rows for table in filled))
    return pa.concat_tables(conform(table, schema) for table in filled)


def plain(table: pa.Table) -> pa.Table:
    """Return a table without metadata and with all columns nullable, so that tables differ in types only."""
    import pyarrow as pa

    fields = [pa.field(field.name, field.type) for field in table.schema]
    return table if not fields else pa.Table.from_arrays(table.columns, schema=pa.schema(fields))
