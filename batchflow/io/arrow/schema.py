"""One schema for the rows of several tables: the narrowest that holds all values, or an error.

The same rules hold for values in one column of one chunk (`batchflow.io.arrow.arrays`) and for columns of
different chunks, so that the result does not depend on where the input was cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from batchflow.core.text import printable
from batchflow.errors import SchemaError
from batchflow.io.arrow.precision import (
    WORDS,
    Marks,
    annotated_schema,
    at_path,
    extension_of,
    inside,
    marks_of,
    type_cache,
    unmarked,
    with_marks,
    would_lose_precision,
)

if TYPE_CHECKING:
    import pyarrow as pa

UTC = "UTC"
_UNITS = ("s", "ms", "us", "ns")
_INTEGER_DIGITS = {8: 3, 16: 5, 32: 10, 64: 19}
_MAX_DIGITS = 76
_FLOAT_BITS = {8: 16, 16: 32, 32: 64, 64: 64}
"""Bits of the smallest float that holds all integers of so many bits; those of 64 bits are marked."""


def unify(known: pa.Schema | None, schema: pa.Schema, where: str = "") -> pa.Schema:
    """Return the narrowest schema that holds both without loss.

    Parameters
    ----------
    known, schema
        The schema of earlier rows, and of these rows.
    where
        Names these rows in the message.

    Raises
    ------
    SchemaError
        If a column has two types that no type holds; the message names the column, the rows and both types.
    """
    schema = _without_metadata(schema)
    if known is None or known.equals(schema, check_metadata=True):
        refuse_duplicates(schema)
        return schema
    refuse_duplicates(schema, where)
    fields = {field.name: field for field in known}
    for field in schema:
        before = fields.get(field.name)
        merged = field if before is None else _merge_fields(before, field)
        if merged is None:
            message = (
                f"column {field.name!r} is {describe(field)}{where and f' in {where}'}, but "
                f"{describe(known.field(field.name))} before: give it one type in the function"
            )
            raise SchemaError(message)
        fields[field.name] = merged
    import pyarrow as pa

    return pa.schema(list(fields.values()))


def refuse_duplicates(schema: pa.Schema, where: str = "") -> None:
    """Raise `SchemaError` if two columns have one name, which most readers refuse."""
    names = schema.names
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        message = f"two columns are named {name!r}{where and f' in {where}'}: rename one"
        raise SchemaError(message)


def _without_metadata(schema: pa.Schema) -> pa.Schema:
    """Return a schema without any metadata but our own marks and names of extension types."""
    import pyarrow as pa

    if schema.metadata or any(field.metadata or not field.nullable for field in schema):
        return pa.schema([with_marks(field, marks_of(field)) for field in schema])
    return schema


def describe(field: pa.Field[Any]) -> str:
    """Return the type of a column in words, with its marks."""
    words = sorted({WORDS[mark] for marks in marks_of(field).values() for mark in marks if mark in WORDS})
    kind = printable(str(field.type))  # keys of records are part of it
    if name := b", ".join(extension_of(field).values()):
        kind = f"{kind} of the extension type {printable(name.decode(errors='replace'))}"
    return f"{kind} with {' and '.join(words)}" if words else kind


def _merge_fields(one: pa.Field[Any], other: pa.Field[Any]) -> pa.Field[Any] | None:
    import pyarrow as pa

    if one.equals(other, check_metadata=True):
        return one
    named = other if pa.types.is_null(one.type) else one
    has_null = any(map(pa.types.is_null, (one.type, other.type)))
    if not has_null and extension_of(one) != extension_of(other):
        return None
    marks: Marks = {}
    for field in (one, other):
        for path, found in marks_of(field).items():
            marks[path] = marks.get(path, frozenset()) | found
    kind = merge_types(one.type, other.type, marks)
    if kind is None or any(would_lose_precision(found, at_path(kind, path)) for path, found in marks.items()):
        return None
    return with_marks(named.with_type(kind), marks)


def merge_types(one: Any, other: Any, marks: Marks | None = None, path: tuple[str | None, ...] = ()) -> Any:
    """Return the narrowest type that holds the values of both types, ``None`` if there is none.

    Parameters
    ----------
    marks
        Those of the values of both types.
    path
        Of the type inside the column.
    """
    import pyarrow as pa

    if one.equals(other) or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if any(isinstance(kind, pa.BaseExtensionType) for kind in (one, other)):
        return None
    flat = _encoded(one), _encoded(other)
    if flat != (one, other):
        return merge_types(*flat, marks, path)
    if any(inside(kind) or pa.types.is_struct(kind) for kind in (one, other)):
        return _merge_nested(one, other, marks or {}, path)
    merged = _merge_text(one, other) or _merge_times(one, other) or _merge_decimals(one, other)
    return merged or _merge_numbers(one, other, (marks or {}).get(path, frozenset()))


def _encoded(kind: Any) -> Any:
    """Return the type of the values of a dictionary or of runs; any other type as it is."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind) else kind


def _merge_nested(one: Any, other: Any, marks: Marks, path: tuple[str | None, ...]) -> Any:
    import pyarrow as pa

    types = pa.types
    if any(is_kind(one) != is_kind(other) for is_kind in (types.is_struct, types.is_map, is_any_list)):
        return None
    if types.is_struct(one) and any(len(inside(kind)) < kind.num_fields for kind in (one, other)):
        return None  # two fields of one name
    merged = dict(inside(one))
    for name, kind in inside(other).items():
        merged[name] = merge_types(merged[name], kind, marks, (*path, name)) if name in merged else kind
    if None in merged.values():
        return None
    if types.is_struct(one):
        return pa.struct([pa.field(str(name), kind) for name, kind in merged.items()])
    return pa.map_(merged["key"], merged["value"]) if types.is_map(one) else _list_type(merged[None], one, other)


def _list_type(kind: Any, *lists: Any) -> Any:
    """Return the type of lists of a type that takes the place of some types of lists."""
    import pyarrow as pa

    sizes = {each.list_size if pa.types.is_fixed_size_list(each) else None for each in lists}
    if len(sizes) == 1 and None not in sizes:
        return pa.list_(kind, *sizes)
    is_large = any(pa.types.is_large_list(each) or pa.types.is_large_list_view(each) for each in lists)
    return (pa.large_list if is_large else pa.list_)(kind)


def is_any_list(kind: Any) -> bool:
    """Whether cells of a type are lists, however Arrow keeps them."""
    import pyarrow as pa

    types = pa.types
    return (
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    is_var = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    return is_var or types.is_fixed_size_binary(kind)


def _merge_text(one: Any, other: Any) -> Any:
    import pyarrow as pa

    small = {pa.string(), pa.binary()}
    is_large = any(kind not in small and not pa.types.is_fixed_size_binary(kind) for kind in (one, other))
    if _is_text(one) and _is_text(other):
        return pa.large_string() if is_large else pa.string()
    if _is_bytes(one) and _is_bytes(other):
        return pa.large_binary() if is_large else pa.binary()
    return None


def _merge_times(one: Any, other: Any) -> Any:
    """Return a type for two of one kind of times; instants of different zones are in UTC."""
    import pyarrow as pa

    types, both = pa.types, (one, other)
    if all(map(types.is_date, both)):
        return pa.date64()
    if all(map(types.is_timestamp, both)) and (one.tz is None) == (other.tz is None):
        return pa.timestamp(_finer(one, other), one.tz if one.tz == other.tz else UTC)
    if all(map(types.is_duration, both)):
        return pa.duration(_finer(one, other))
    if all(map(types.is_time, both)):
        unit = _finer(one, other)
        return pa.time64(unit) if unit in {"us", "ns"} else pa.time32(unit)
    return None


def _finer(one: Any, other: Any) -> Any:
    return max(one.unit, other.unit, key=_UNITS.index)


def _merge_decimals(one: Any, other: Any) -> Any:
    import pyarrow as pa

    types, both = pa.types, (one, other)
    if not any(map(types.is_decimal, both)):
        return None
    scale = max(kind.scale for kind in both if types.is_decimal(kind))
    digits = scale
    for kind in both:
        if types.is_decimal(kind):
            digits = max(digits, kind.precision - kind.scale + scale)
        elif types.is_integer(kind):
            digits = max(digits, _INTEGER_DIGITS[kind.bit_width] + (kind == pa.uint64()) + scale)
        else:
            return None  # a float is no exact number
    if digits > _MAX_DIGITS:
        return None
    width = max(kind.bit_width for kind in both if types.is_decimal(kind))
    for most, bits, make in ((9, 32, pa.decimal32), (18, 64, pa.decimal64), (38, 128, pa.decimal128)):
        if digits <= most and width <= bits:
            return make(digits, scale)
    return pa.decimal256(digits, scale)


def _merge_numbers(one: Any, other: Any, marks: frozenset[str]) -> Any:
    import pyarrow as pa

    types, both = pa.types, (one, other)
    floats = [kind.bit_width for kind in both if types.is_floating(kind)]
    integers = [kind for kind in both if types.is_integer(kind)]
    if len(floats) + len(integers) < len(both):
        return None
    if floats:
        bits = max(*floats, *(_FLOAT_BITS[kind.bit_width] for kind in integers), 0)
        return {16: pa.float16(), 32: pa.float32(), 64: pa.float64()}[bits]
    signed = [kind.bit_width for kind in both if types.is_signed_integer(kind)]
    unsigned = [kind.bit_width for kind in both if types.is_unsigned_integer(kind)]
    if not signed or (max(unsigned, default=0) == 64 and "huge" in marks):  # loses() refuses negative ones
        return {8: pa.uint8(), 16: pa.uint16(), 32: pa.uint32(), 64: pa.uint64()}[max(both, key=_bits).bit_width]
    bits = min(64, max(*signed, *(2 * width for width in unsigned), 0))
    return {8: pa.int8(), 16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[bits]


def _bits(kind: Any) -> int:
    return int(kind.bit_width)


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
        index = table.schema.get_field_index(field.name)
        if index < 0:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        try:
            columns.append(cast(table.column(index), field.type))
        except pa.ArrowException as error:
            message = f"column {field.name!r} does not fit {field.type} without loss: {error}"
            raise SchemaError(message) from error
    if not columns:
        return bare(table.num_rows)
    return pa.Table.from_arrays(columns, schema=schema)


def cast(column: Any, kind: Any) -> Any:
    """Return a column with a type that `merge_types` gave for it."""
    if column.type.equals(kind):
        return column
    import pyarrow as pa

    column = without_views(column)
    if column.type.equals(kind):
        return column
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        if not inside(column.type):
            raise
    # A list or struct that is null may have values that nothing shows, and that do not fit.
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return pa.chunked_array(list(map(_flat, chunks)), column.type).cast(kind)


def concat(tables: Iterable[pa.Table]) -> pa.Table:
    """Return tables one after the other as one, their schemas unified.

    Raises
    ------
    SchemaError
        If their schemas cannot be unified.
    """
    import pyarrow as pa

    filled = [table for table in tables if table.num_columns or table.num_rows]
    if len(filled) == 1:
        return filled[0]
    if filled and all(table.schema.equals(filled[0].schema) for table in filled) and filled[0].num_columns:
        return pa.concat_tables(filled)
    schema, row = None, 0
    for table in filled:
        schema = unify(schema, annotated_schema(table), f"row {row + 1:,}")
        row += table.num_rows
    if schema is None:
        return pa.table({})
    if not schema.names:
        return bare(row)
    schema = unmarked(schema)
    return pa.concat_tables(conform(table, schema) for table in filled)


def bare(count: int) -> pa.Table:
    """Return a table of some rows without any column."""
    import pyarrow as pa

    return pa.table({"value": pa.nulls(count)}).select([])


def plain(table: pa.Table) -> pa.Table:
    """Return a table without metadata and with all columns nullable, so that tables differ in types only."""
    import pyarrow as pa

    fields = unmarked(table.schema)
    return pa.Table.from_arrays(table.columns, schema=fields) if fields.names else table


# --- views and runs -------------------------------------------------------------------------------


def table_without_views(table: pa.Table) -> pa.Table:
    """Return a table without views, runs and small or nested dictionaries.

    A slice of a view takes all of it along, and few programs read views or runs. A dictionary whose indices
    have eight bits does not hold the text of other chunks, and Arrow unites neither nested dictionaries nor
    those that have null among their values.
    """
    import pyarrow as pa

    if not any(_has_views(column.type, is_column=True) or _has_null_value(column) for column in table.columns):
        return table
    columns = [_stored(column) for column in table.columns]
    fields = [field.with_type(column.type) for field, column in zip(table.schema, columns, strict=True)]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def without_views(column: Any) -> Any:
    """Return a column, chunked or not, without views and runs at any depth."""
    import pyarrow as pa

    if not _has_views(column.type):
        return column
    if not isinstance(column, pa.ChunkedArray):
        return _flat(column)
    return pa.chunked_array([_flat(chunk) for chunk in column.chunks], _flat_type(column.type))


def _stored(column: Any) -> Any:
    """Return a column without views and runs; a dictionary of text stays one."""
    kind = _flat_type(column.type, is_column=True)
    import pyarrow as pa

    is_decoded = pa.types.is_dictionary(column.type) and not pa.types.is_dictionary(kind)
    if is_decoded and len(column) and not any(len(chunk.dictionary) for chunk in column.chunks):
        return pa.chunked_array([pa.nulls(len(column))])  # pandas calls categories floats if there are none
    if _has_null_value(column):
        return without_views(column.cast(column.type.value_type)).dictionary_encode()
    if kind.equals(column.type):
        return column
    return column.cast(kind) if pa.types.is_dictionary(kind) and _can_cast(column.type) else without_views(column)


def _has_null_value(column: Any) -> bool:
    """Whether a column is a dictionary with null among its values, to which indices of null cells point."""
    import pyarrow as pa

    return pa.types.is_dictionary(column.type) and any(chunk.dictionary.null_count for chunk in column.chunks)


def _can_cast(kind: Any) -> bool:
    return not _has_views(kind.value_type)


@type_cache
def _has_views(kind: Any, *, is_column: bool = False) -> bool:
    return not _flat_type(kind, is_column=is_column).equals(kind)


def _flat_type(kind: Any, *, is_column: bool = False) -> Any:
    import pyarrow as pa

    types: Any = pa.types
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        flat = _flat_type(kind.value_type)
        is_kept = is_column and types.is_dictionary(kind) and (_is_text(flat) or _is_bytes(flat))
        return pa.dictionary(pa.int32(), flat, kind.ordered) if is_kept else flat
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return pa.large_string() if types.is_string_view(kind) else pa.large_binary()
    held = {name: _flat_type(inner) for name, inner in inside(kind).items()}
    is_view = types.is_list_view(kind) or types.is_large_list_view(kind)
    return nested_type(kind, held) if is_view or held != inside(kind) else kind


def nested_type(kind: Any, held: Mapping[str | None, Any]) -> Any:
    """Return a nested type whose cells hold other types, and lists in the place of views of lists.

    Parameters
    ----------
    held
        The types that `inside` would give for it.
    """
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(held[field.name]) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_field.with_type(held["key"]), kind.item_field.with_type(held["value"]))
    return _list_type(kind.value_field.with_type(held[None]), kind)


def _flat(array: Any) -> Any:
    """Return an array without views, and without values in nulls; Arrow's own cast of list views drops values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if not _has_views(kind) and not inside(kind):
        return array
    if pa.types.is_run_end_encoded(kind):
        decode: Any = pc.call_function
        return _flat(decode("run_end_decode", [array]))
    if pa.types.is_dictionary(kind):
        return _flat(array.dictionary).take(array.indices.cast(pa.int64()))
    return _flat_nested(array, _flat_type(kind)) if inside(kind) else array.cast(_flat_type(kind))


def _flat_nested(array: Any, target: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    types, kind, mask = pa.types, array.type, array.is_null()
    if types.is_struct(kind):
        return pa.StructArray.from_arrays(list(map(_flat, array.flatten())), fields=list(target), mask=mask)
    if types.is_fixed_size_list(kind):
        size, valid = kind.list_size, array.is_valid().to_pylist()
        places = [
            (array.offset + at) * size + part if is_valid else None
            for at, is_valid in enumerate(valid)
            for part in range(size)
        ]
        values = array.values.take(pa.array(places, pa.int64()))
        return pa.FixedSizeListArray.from_arrays(_flat(values), type=target, mask=mask)
    if types.is_map(kind):
        pairs = array.cast(pa.list_(pa.struct([kind.key_field, kind.item_field])))
        entries = pairs.flatten().flatten()
        make_map: Any = pa.MapArray.from_arrays
        return make_map(_offsets(pairs), *map(_flat, entries), target, mask=mask)
    make = pa.LargeListArray if types.is_large_list(target) else pa.ListArray
    offsets = _offsets(array)
    return make.from_arrays(
        offsets if make is pa.ListArray else offsets.cast(pa.int64()),
        _flat(pc.list_flatten(array)),
        type=target,
        mask=mask,
    )


def _offsets(lists: Any) -> Any:
    """Return where the values of lists begin once they are flattened."""
    from itertools import accumulate

    import pyarrow as pa
    import pyarrow.compute as pc

    return pa.array(accumulate(pc.fill_null(pc.list_value_length(lists), 0).to_pylist(), initial=0), pa.int32())
