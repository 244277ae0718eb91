"""Reader of job outputs, as Arrow tables and Python values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from shlex import quote
from typing import TYPE_CHECKING, Any

from batchflow.checkpoint.destination import Destination
from batchflow.core.text import printable
from batchflow.errors import OutputError
from batchflow.io.arrow.convert import VALUE, rows_to_table
from batchflow.io.arrow.schema import concat
from batchflow.io.formats.base import format_of
from batchflow.io.formats.json_lines import is_noted
from batchflow.io.sources.paths import open_input
from batchflow.io.stores import Uri, filesystem

if TYPE_CHECKING:
    import pyarrow as pa


BLOCK = 64 << 20
"""Maximum bytes of CSV or JSON Lines parsed at a time, and so of a row."""


def _files(destination: Destination) -> dict[str, int | None]:
    """Return the file or the parts with their sizes, in numeric order."""
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


def open_dataset(destination: Destination, kind: Any, schema: pa.Schema | None = None) -> Any:
    """Return an output as a dataset of Arrow, with its parts in input order."""
    import pyarrow.dataset as ds

    files = list(_files(destination))
    if not isinstance(destination.path, Uri):
        return ds.dataset(files, schema, kind)
    system = filesystem(files[0])[0] if files else None
    return ds.dataset([filesystem(file)[1] for file in files], schema, kind, filesystem=system)


def unread_rows(count: int, schema: pa.Schema | None) -> Any:
    """Return a scanner of rows that text cannot represent: there are none, or they have no columns."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    bare = pa.table({"": pa.nulls(count)}).select([])
    return ds.dataset(schema.empty_table() if schema is not None and schema.names else bare).scanner()


def _block(destination: Destination) -> int:
    """Return the block size of the parser in bytes; a row must fit into a block."""
    return max(1, min(BLOCK, max(size or 0 for size in _files(destination).values())))


def csv_scanner(destination: Destination, schema: pa.Schema | None) -> Any:
    """Return a scanner of the rows of a CSV output, with the types that it was written from."""
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
        return open_dataset(destination, kind).scanner()
    parsed = pa.schema([(field.name, _parsed_csv(field.type)) for field in schema])
    columns = {field.name: ds.field(field.name) for field in schema}
    for field in parsed:
        if field.type != schema.field(field.name).type:
            columns[field.name] = columns[field.name].cast(schema.field(field.name).type)
    return open_dataset(destination, kind, parsed).scanner(columns=columns)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    kinds = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return any(is_kind(kind) for is_kind in kinds)


def _parsed_csv(kind: Any) -> Any:
    """Return the type as which Arrow's CSV reader parses a cell."""
    import pyarrow as pa

    if pa.types.is_float16(kind):
        return pa.float32()
    return pa.string() if pa.types.is_decimal256(kind) else kind


def json_scanner(destination: Destination, schema: pa.Schema | None) -> Any:
    """Return a scanner of the rows of a JSON Lines output, with the types that it was written from."""
    import pyarrow as pa
    import pyarrow.dataset as ds
    import pyarrow.json as pajson

    if schema is None or not is_noted(schema):
        return ds.dataset(json_table(destination, schema)).scanner()
    kind = ds.JsonFileFormat(read_options=pajson.ReadOptions(block_size=_block(destination)))
    parsed = pa.schema([(field.name, _leaves(field.type, _parsed)) for field in schema])
    columns = {field.name: ds.field(field.name) for field in schema}
    for field in parsed:
        shown = _leaves(schema.field(field.name).type, _shown)
        if shown != field.type:
            columns[field.name] = columns[field.name].cast(shown)
    return open_dataset(destination, kind, parsed).scanner(columns=columns)


def unreadable_output(destination: Destination, error: Exception) -> OutputError:
    """Return the error of an output that cannot be parsed."""
    reason = printable(str(error).partition("\n")[0])
    path = destination.path
    return OutputError(f"cannot read {path}: {reason}; find the damage: batchflow verify {quote(str(path))}")


_DECODED_BYTES = 8 << 20


def _json_rows(destination: Destination) -> Iterator[list[Any]]:
    """Yield the objects of an output in JSON Lines, some thousand at a time."""
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
        raise unreadable_output(destination, error) from error


def json_table(destination: Destination, schema: pa.Schema | None) -> pa.Table:
    """Return the rows of a JSON Lines output, parsed by Python, as a table."""
    """Return the lines of an output as a table, parsed by Python: its columns have no single known type."""
    import pyarrow as pa

    table = concat(rows_to_table(rows) for rows in _json_rows(destination))
    for field in schema or ():
        at = table.schema.get_field_index(field.name)
        if at >= 0 and (column := _typed(table.column(at), field.type)) is not None:
            table = table.set_column(at, pa.field(field.name, column.type), column)
    return table


def _typed(column: Any, kind: Any) -> Any:
    """Convert a column of times, dates or decimals from its JSON text; ``None`` for other types."""
    import pyarrow as pa

    types = pa.types
    shown = types.is_timestamp(kind) or types.is_date(kind) or types.is_decimal(kind)
    if not (shown and types.is_string(column.type)):
        return None
    try:
        return column.cast(kind)
    except pa.ArrowException:
        return None


def json_values(destination: Destination, schema: pa.Schema | None) -> list[Any]:
    """Return the values of a JSON Lines output, as Python parses them."""
    """Return the values of the function with the keys of each record; times and dates typed by column."""
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
    """Return a type with the innermost types of its lists and structs replaced."""
    import pyarrow as pa

    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind):
        made = pa.large_list if types.is_large_list(kind) and change is _shown else pa.list_
        return made(_leaves(kind.value_type, change))
    if types.is_struct(kind):
        return pa.struct([field.with_type(_leaves(field.type, change)) for field in kind])
    return change(kind)


def _parsed(kind: Any) -> Any:
    """Return the type as which Arrow's JSON reader parses a cell that our writer converted."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return _parsed(kind.value_type)
    if types.is_float16(kind):
        return pa.float32()
    return pa.string() if types.is_date(kind) else _shown(kind)


def _shown(kind: Any) -> Any:
    """Return the JSON type of a cell: bytes (in base64), times of day and durations are text."""
    import pyarrow as pa

    types = pa.types
    text = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_time, types.is_duration)
    return pa.string() if any(is_kind(kind) for is_kind in text) else kind
