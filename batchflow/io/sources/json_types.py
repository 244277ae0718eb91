"""Columns of JSON records for functions of batches: inferred once from a sample, or named by the user."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchflow.errors import FormatError, SchemaError
from batchflow.io.arrow.arrays import to_array
from batchflow.io.arrow.convert import VALUE
from batchflow.io.arrow.precision import annotated_schema
from batchflow.io.arrow.schema import conform, unify
from batchflow.io.sources.csv_types import CellType

if TYPE_CHECKING:
    import pyarrow as pa

_ARROW = "arrow:"
"""What the plain form of an Arrow type begins with; a schema of one field follows, in base 64."""


def plain_types(types: Any) -> dict[str, str] | None:
    """Return the ``types=`` of `read_json` as plain values: names of Python types, or Arrow types as text.

    Raises
    ------
    FormatError
        If a type is none that a column can have.
    """
    if types is None:
        return None
    items = getattr(types, "items", None)
    pairs = items() if items else ((field.name, field.type) for field in types)
    return {name: _plain_type(kind) for name, kind in pairs}


def _plain_type(kind: Any) -> str:
    if isinstance(kind, str) and kind.startswith(_ARROW):
        return kind
    if type(kind).__module__.partition(".")[0] == "pyarrow":
        import pyarrow as pa

        return _ARROW + schema_as_text(pa.schema([pa.field("", kind)]))
    try:
        return CellType.of(kind).value
    except FormatError:
        known = ", ".join(member.value for member in CellType)
        message = f"{kind!r} is not a type that a column can have: use one of {known}, or a type of pyarrow"
        raise FormatError(message) from None


def arrow_type(plain: str) -> Any:
    """Return the Arrow type of a plain one."""
    if plain.startswith(_ARROW):
        return schema_of_text(plain.removeprefix(_ARROW)).field(0).type
    return CellType(plain).arrow


def schema_as_text(schema: pa.Schema) -> str:
    """Return a schema as text."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def schema_of_text(text: str) -> pa.Schema:
    """Return a schema from its text."""
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def infer_schema(rows: Sequence[Mapping[str, Any]], named: Mapping[str, str]) -> pa.Schema:
    """Return the columns of a sample, with the types that were named."""
    import pyarrow as pa

    columns: dict[str, list[Any]] = {}
    for row in rows:
        for name, cell in row.items():
            columns.setdefault(name, []).append(cell)
    fields = {name: pa.field(name, _infer(cells)) for name, cells in columns.items() if name not in named}
    for name, plain in named.items():
        fields[name] = pa.field(name, arrow_type(plain))
    return pa.schema([fields[name] for name in [*columns, *(named.keys() - columns.keys())]])


def _infer(cells: Sequence[Any]) -> Any:
    """Return the type of the cells; if they have none in common, that of the first one that has a type."""
    import pyarrow as pa

    for some in (cells, *([cell] for cell in cells if cell is not None)):
        try:
            return to_array(some).type
        except Exception:
            continue
    return pa.null()


class Columns:
    """Converts records to tables of one schema.

    Parameters
    ----------
    schema
        Of every table.
    named
        Columns whose types the user named, as plain types.
    """

    def __init__(self, schema: pa.Schema, named: Mapping[str, str]) -> None:
        self._schema = schema
        self._named = named
        self._names = frozenset(schema.names)

    def table(self, records: Sequence[Any]) -> pa.Table:
        """Return records as a table.

        Raises
        ------
        SchemaError
            If a record has another field, or a value does not fit the type of its column.
        """
        import pyarrow as pa

        rows = [record if type(record) is dict else {VALUE: record} for record in records]
        if not all(map(self._names.issuperset, rows)):
            raise SchemaError(self._unknown(rows))
        arrays = [self._column(field, [row.get(field.name) for row in rows]) for field in self._schema]
        return pa.Table.from_arrays(arrays, schema=self._schema)

    def _unknown(self, rows: Sequence[Mapping[str, Any]]) -> str:
        name, cell = next((name, row[name]) for row in rows for name in row if name not in self._names)
        kind = type(cell).__name__ if type(cell) in (int, float, bool, str) else "str"
        return (
            f"field {name!r} is not in the sample that the columns were inferred from: "
            f"pass types={{{name!r}: {kind}}} (--types {name}={kind})"
        )

    def _column(self, field: Any, cells: Sequence[Any]) -> Any:
        import pyarrow as pa

        try:
            if field.name in self._named:
                cells = [cell if cell is None else _converted(cell, self._named[field.name]) for cell in cells]
            table = pa.table({field.name: to_array(cells)})
            schema = pa.schema([field])
            if table.schema.field(0).type != field.type:
                if not (field.name in self._named and _are_numbers(table.schema.field(0).type, field.type)):
                    united = unify(schema, annotated_schema(table))
                    if united.field(0).type != field.type:
                        raise SchemaError
                table = conform(table, schema)
            return table.column(0)
        except Exception as error:
            raise SchemaError(self._misfit(field, cells)) from error

    def _misfit(self, field: Any, cells: Sequence[Any]) -> str:
        shown = repr(next((cell for cell in cells if cell is not None), None))[:50]
        if field.name in self._named:
            return f"column {field.name!r}: {shown} is not of type {field.type}"
        return (
            f"column {field.name!r}: {shown} is not of type {field.type}, inferred from the first rows: "
            f"to read such values as JSON text, pass types={{{field.name!r}: str}} (--types {field.name}=str)"
        )


def _are_numbers(*kinds: Any) -> bool:
    """Whether a cast between types is of numbers, which refuses those that it would change."""
    import pyarrow as pa

    types = pa.types
    checks = (types.is_integer, types.is_floating, types.is_decimal, types.is_null)
    return all(any(is_kind(kind) for is_kind in checks) for kind in kinds)


def _converted(cell: Any, plain: str) -> Any:
    """Return a value of JSON as one of a named type: text and times are not what JSON has."""
    if plain == CellType.TEXT.value:
        import msgspec

        return cell if isinstance(cell, str) else msgspec.json.encode(cell).decode()
    if plain in (CellType.DATE.value, CellType.DATETIME.value) and isinstance(cell, str):
        return CellType(plain).cell(cell)
    return cell
