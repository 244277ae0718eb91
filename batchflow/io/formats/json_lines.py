"""Records as JSON Lines: each is encoded by itself, and the types of the lines are noted for reading them back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeAlias

from batchflow.core.text import one
from batchflow.errors import SchemaError
from batchflow.io.arrow.arrays import kinds_of, to_array
from batchflow.io.arrow.columns import column_values
from batchflow.io.arrow.convert import VALUE, NotTabularError, as_rows, is_row
from batchflow.io.arrow.precision import inside, with_marks
from batchflow.io.arrow.schema import unify

if TYPE_CHECKING:
    import pyarrow as pa

MOST_FIELDS = 1000
"""Keys of a column of objects that are noted; objects with more have keys of their own rather than columns."""
_MINUTE = timedelta(minutes=1)
_WIDE = 2**53
_LEAST, _MOST = -(2**63), 2**63 - 1

Shape: TypeAlias = Any
"""Type of cells: a key of `_WORDS`, `ANY`, ``("list", shape)``, ``("struct", {name: shape})`` or an Arrow type."""
_WORDS = {
    "null": "null",
    "bool": "bool_",
    "int": "int64",
    "wide": "int64",
    "float": "float64",
    "str": "string",
}
"""Arrow's names of them; ``wide``: whole numbers of which some are more than a float holds."""
ANY = "any"
"""Shape of cells that no one type holds; only Python reads them back."""
_BASIC = {type(None): "null", bool: "bool", int: "int", float: "float", str: "str"}


def encode_rows(values: Sequence[Any]) -> tuple[bytes, dict[str, Shape]]:
    """Return what a function returned for some records as lines, and the shapes of their columns.

    Parameters
    ----------
    values
        Mappings; scalars and lists, which become rows of the column ``value``.

    Raises
    ------
    NotTabularError
        If a value is of another type.
    SchemaError
        If JSON has no form for a value.
    """
    import msgspec

    kinds = kinds_of(values)
    rows = values if kinds == {dict} else as_rows(values, kinds)
    try:
        text = msgspec.json.Encoder().encode_lines(rows)
        return text, _columns(rows)
    except (_ForeignError, TypeError, OverflowError, RecursionError):
        pass  # a value that is converted below, or refused there with its column
    except UnicodeEncodeError as error:
        message = f"half a surrogate pair, which no UTF-8 text holds: {error.reason}"
        raise SchemaError(message) from error
    plain = [_plain_row(row) for row in rows]
    return b"".join(map(_line, plain)), _typed_columns(rows, plain)


class _ForeignError(Exception):
    """A value that `msgspec` would change, or that is none of Python's own."""


def _columns(rows: Sequence[Any]) -> dict[str, Shape]:
    """Return the shape of each column; raises `_ForeignError` if a value needs another look."""
    return merged_columns({}, {name: _shape(cells) for name, cells in _cells(rows).items()})


def _cells(rows: Sequence[Any]) -> dict[str, list[Any]]:
    """Return the cells of each key of some mappings; a key that some lack has fewer cells."""
    if not rows:
        return {}
    names = list(rows[0])
    columns: dict[str, list[Any]]
    try:
        if set(map(len, rows)) == {len(names)}:
            columns = {name: [row[name] for row in rows] for name in names}
        else:
            columns = _ragged(rows)
    except KeyError:
        columns = _ragged(rows)
    if not all(type(name) is str for name in columns):
        raise _ForeignError
    return columns


def _ragged(rows: Iterable[Any]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for name, cell in row.items():
            cells = columns.get(name)
            if cells is None:
                columns[name] = [cell]
            else:
                cells.append(cell)
    return columns


def _shape(cells: Sequence[Any]) -> Shape:
    kinds = kinds_of(cells)
    shape: Shape = "null"
    for kind in kinds:
        some: Sequence[Any] = cells if len(kinds) == 1 else [cell for cell in cells if type(cell) is kind]
        shape = merged(shape, _shape_of_kind(kind, some))
    return shape


def _shape_of_kind(kind: type, cells: Sequence[Any]) -> Shape:
    """Return the shape of cells of one type."""
    if kind is dict:
        shapes = {name: _shape(column) for name, column in _cells(cells).items()}
        return _struct(shapes) if shapes else ANY
    if kind is list:
        return _list(_shape(list(chain.from_iterable(cells))))
    if kind is int:
        least, most = min(cells), max(cells)
        if not (least >= _LEAST and most <= _MOST):
            return ANY
        return "wide" if most > _WIDE or least < -_WIDE else "int"
    if kind not in _BASIC or (kind is float and not all(map(isfinite, cells))):
        raise _ForeignError
    return _BASIC[kind]


def _struct(fields: dict[str, Shape]) -> Shape:
    return ANY if len(fields) > MOST_FIELDS or ANY in fields.values() else ("struct", fields)


def _list(inner: Shape) -> Shape:
    return ANY if inner == ANY else ("list", inner)


def merged(before: Shape, after: Shape) -> Shape:
    """Return the shape that holds two, `ANY` if none does."""
    if before == after or "null" in (before, after):
        return after if before == "null" else before
    if isinstance(before, str) and isinstance(after, str):
        return _PAIRS.get(frozenset((before, after)), ANY)
    if not (isinstance(before, tuple) and isinstance(after, tuple) and before[0] == after[0]):
        return ANY
    if before[0] == "list":
        return _list(merged(before[1], after[1]))
    return _struct(merged_columns(before[1], after[1]))


_PAIRS = {frozenset(("int", "float")): "float", frozenset(("int", "wide")): "wide"}


def merged_columns(before: Mapping[str, Shape], after: Mapping[str, Shape]) -> dict[str, Shape]:
    """Return the shapes of columns that hold those of two tables."""
    columns = dict(before)
    for name, shape in after.items():
        columns[name] = merged(columns[name], shape) if name in columns else shape
    return columns if len(columns) <= MOST_FIELDS else {"": ANY}


def schema_of(columns: Mapping[str, Shape]) -> pa.Schema:
    """Return the schema of columns, with marks; a column of `ANY` is a struct without fields."""
    import pyarrow as pa

    fields = []
    for name, shape in columns.items():
        marks = dict.fromkeys(_wide_paths(shape, ()), frozenset({"wide"}))
        fields.append(with_marks(pa.field(name, _arrow(shape)), marks))
    return pa.schema(fields)


def _arrow(shape: Shape) -> Any:
    import pyarrow as pa

    if isinstance(shape, tuple):
        if shape[0] == "list":
            return pa.list_(_arrow(shape[1]))
        return pa.struct([pa.field(name, _arrow(field)) for name, field in shape[1].items()])
    if shape == ANY:
        return pa.struct([])
    return getattr(pa, _WORDS[shape])() if isinstance(shape, str) else shape


def _wide_paths(shape: Shape, path: tuple[str | None, ...]) -> Iterable[tuple[str | None, ...]]:
    if shape == "wide":
        yield path
    elif isinstance(shape, tuple) and shape[0] == "list":
        yield from _wide_paths(shape[1], (*path, None))
    elif isinstance(shape, tuple):
        for name, field in shape[1].items():
            yield from _wide_paths(field, (*path, name))


def unite(known: pa.Schema | None, schema: pa.Schema) -> pa.Schema:
    """Return a schema of lines before and of lines now: each line is by itself, so any two go together."""
    import pyarrow as pa

    unknown = pa.struct([])
    schema = pa.schema([field.with_type(unknown) if _is_foreign(field.type) else field for field in schema])
    if known is None or known.equals(schema, check_metadata=True):
        return schema
    fields = {field.name: field for field in known}
    for field in schema:
        before = fields.get(field.name)
        fields[field.name] = field if before is None else _united(before, field)
    if len(fields) > MOST_FIELDS:
        return schema_of({"": ANY})
    return pa.schema(list(fields.values()))


def _united(before: pa.Field[Any], after: pa.Field[Any]) -> pa.Field[Any]:
    import pyarrow as pa

    unknown = pa.struct([])
    if unknown in (before.type, after.type):
        return pa.field(before.name, unknown)
    try:
        field = unify(pa.schema([before]), pa.schema([after])).field(0)
    except SchemaError:
        return pa.field(before.name, unknown)
    return pa.field(before.name, unknown) if _fields_in(field.type) > MOST_FIELDS else field


def _fields_in(kind: Any) -> int:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return sum(1 + _fields_in(field.type) for field in kind)
    return _fields_in(kind.value_type) if pa.types.is_list(kind) else 0


def is_noted(schema: pa.Schema) -> bool:
    """Whether a schema has a type for every column that lines hold."""
    import pyarrow as pa

    return pa.struct([]) not in schema.types


def _typed_columns(rows: Sequence[Any], plain: Sequence[Any]) -> dict[str, Shape]:
    """Return the shapes of columns with values that are none of JSON's own: Arrow's types of the values."""
    import pyarrow as pa

    from batchflow.io.arrow.convert import rows_to_table

    columns: dict[str, Shape] = {}
    for name, cells in _ragged(plain).items():
        try:
            columns[name] = _shape(cells)
        except _ForeignError:
            columns[name] = ANY
    for name, cells in _ragged(rows).items():
        if not all(kind in _BASIC for kind in kinds_of(cells)) and columns.get(name) != ANY:
            try:
                columns[name] = rows_to_table([{VALUE: cell} for cell in cells]).schema.field(0).type
            except SchemaError:  # Arrow has no type for them
                columns[name] = ANY
    return {
        name: ANY if isinstance(shape, pa.DataType) and _is_foreign(shape) else shape
        for name, shape in columns.items()
    }


def _is_foreign(kind: Any) -> bool:
    """Whether Arrow's JSON reader does not know a type."""
    import pyarrow as pa

    is_extension = isinstance(kind, pa.BaseExtensionType)
    return pa.types.is_map(kind) or is_extension or any(map(_is_foreign, inside(kind).values()))


def _line(row: Mapping[str, Any]) -> bytes:
    import msgspec

    try:
        return msgspec.json.encode(row) + b"\n"
    except OverflowError:  # beyond 64 bits, where JSON has no limit
        import json

        text = json.dumps(row, ensure_ascii=False, separators=(",", ":"), default=msgspec.to_builtins)
        return text.encode() + b"\n"
    except UnicodeEncodeError as error:
        message = "half a surrogate pair, which no UTF-8 text holds: replace it, or return bytes"
        raise SchemaError(message) from error


def _plain_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row as Python's own types, each of which JSON shows without loss."""
    plain = {}
    for name, cell in row.items():
        if not isinstance(name, str):
            message = f"a row has the key {name!r}: names of columns are text"
            raise NotTabularError(message)
        try:
            plain[str(name)] = _plain(cell)
        except (SchemaError, RecursionError) as error:
            reason = "a value that contains itself" if isinstance(error, RecursionError) else error
            message = f"column {name!r}: {reason}"
            raise SchemaError(message) from None
    return plain


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind in _BASIC:
        if kind is float and not isfinite(value):
            message = f"{value} is no JSON value: return None, or write format='parquet'"
            raise SchemaError(message)
        return value
    if is_row(kind):
        for key in value:
            if not isinstance(key, str):
                message = f"the key {key!r} is no text, as keys of JSON objects are: convert it in the function"
                raise SchemaError(message)
        return {str(key): _plain(item) for key, item in value.items()}
    if kind in (list, tuple):
        return [_plain(item) for item in value]
    if kind.__module__ == "pyarrow.lib" and (hasattr(value, "as_py") or hasattr(value, "null_count")):
        return _plain(_python_value(value))
    return _plain_scalar(value, kind)


def _python_value(value: Any) -> Any:
    """Return a scalar of Arrow as a Python value, an array as a list."""
    is_scalar = hasattr(value, "as_py")
    values, refused = column_values(to_array([value]) if is_scalar else value)
    for reason in refused.values():
        raise SchemaError(reason)
    return values[0] if is_scalar else values


def _plain_scalar(value: Any, kind: type) -> Any:
    """Return a value of a type that JSON does not know, as text or numbers that tell all of it."""
    module = kind.__module__.partition(".")[0]
    if kind in (bytes, bytearray, memoryview):
        return bytes(value)
    if module == "numpy":
        return _plain_numpy(value)
    if module == "pandas" and hasattr(value, "isoformat"):
        text = _with_whole_offset(value).isoformat()
        return None if text == "NaT" else text
    if kind in (datetime, time):
        in_milliseconds = value.microsecond and value.microsecond % 1000 == 0  # no more digits than the type has
        text = _with_whole_offset(value).isoformat(timespec="milliseconds" if in_milliseconds else "auto")
        return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text
    if kind in (date, timedelta, Decimal) or (module, kind.__name__) == ("uuid", "UUID"):
        return value
    if kind.__name__ == "NAType":
        return None
    name = one(kind.__qualname__)
    message = f"{name} has no form in JSON: convert it in the function, or leave it out"
    raise SchemaError(message)


def _with_whole_offset(value: Any) -> Any:
    """Return a time as it is, in UTC if its offset has seconds, which ISO 8601 does not have."""
    offset = value.utcoffset() if isinstance(value, datetime) and value == value else None  # NaT has none
    if not offset or not offset % _MINUTE:
        return value
    try:
        return value.astimezone(UTC)
    except (OverflowError, ValueError) as error:  # of pandas
        message = f"{value}, which has no form in UTC: return a time with an offset of whole minutes"
        raise SchemaError(message) from error


def _plain_numpy(value: Any) -> Any:
    letter = value.dtype.kind
    if letter in "mM":
        if getattr(value, "ndim", 0):
            return [_plain(item) for item in value]
        text = str(value)
        if letter == "M":
            return None if text == "NaT" else text
        if text == "NaT":
            return None
        if value.dtype.name == "timedelta64[ns]":
            return iso_duration(int(value.astype("int64")))
        return _plain(value.item())
    if letter == "V" or letter == "c":
        message = f"{one(value.dtype.name)} has no form in JSON: convert it in the function, or leave it out"
        raise SchemaError(message)
    return _plain(value.tolist())


def iso_duration(nanoseconds: int) -> str:
    """Return a duration as ISO 8601 has it."""
    sign, count = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    seconds, rest = divmod(count, 10**9)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{sign}PT{seconds}{fraction}S"


def encode_table(table: pa.Table) -> bytes:
    """Return the rows of a table as lines; nulls are written.

    Raises
    ------
    SchemaError
        If JSON has no form for a value.
    """
    names = table.column_names
    if len(set(names)) < len(names):
        message = f"two columns of one name: {names}"
        raise SchemaError(message)
    if not names:
        return b"{}\n" * table.num_rows
    lines = []
    for batch in table.to_batches(max_chunksize=8192):
        columns = []
        for name, column in zip(names, batch.columns, strict=True):
            try:
                columns.append(_values(column))
            except (OverflowError, ValueError) as error:
                message = f"column {name!r}: {error}: Python and JSON have no such value"
                raise SchemaError(message) from error
        rows = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        lines.append(encode_rows(rows)[0])
    return b"".join(lines)


def _values(array: Any) -> list[Any]:
    """Return an array as Python values, those of nanoseconds as text: Python counts microseconds."""
    import pyarrow as pa

    types, kind = pa.types, array.type
    if not _counts_nanoseconds(kind):
        return list(array.to_pylist())
    if types.is_dictionary(kind):
        return _values(array.dictionary_decode())
    if types.is_struct(kind):
        parts = [_values(part) for part in array.flatten()]
        names = [field.name for field in kind]
        rows = [dict(zip(names, row, strict=True)) for row in zip(*parts, strict=True)]
        return [row if valid else None for row, valid in zip(rows, array.is_valid().to_pylist(), strict=True)]
    if types.is_duration(kind):
        counts = array.view(pa.int64()).to_pylist()
        return [None if count is None else iso_duration(count) for count in counts]
    if types.is_timestamp(kind) or types.is_time(kind):
        if types.is_timestamp(kind) and kind.tz is not None:
            array = array.cast(pa.timestamp("ns", "UTC"))
        return [None if text is None else text.replace(" ", "T") for text in array.cast(pa.string()).to_pylist()]
    return [None if cell is None else _values(cell) for cell in (scalar.values for scalar in array)]


def _counts_nanoseconds(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return _counts_nanoseconds(kind.value_type)
    if types.is_struct(kind):
        return any(_counts_nanoseconds(field.type) for field in kind)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _counts_nanoseconds(kind.value_type)
    timed = types.is_timestamp(kind) or types.is_time(kind) or types.is_duration(kind)
    return bool(timed and kind.unit == "ns")
