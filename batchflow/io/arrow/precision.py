"""What the type of a column does not tell of its values: that some are too large for a wider type.

An int64 column and a float64 one make a float64 column, unless there are numbers beyond 2**53. A chunk
is converted, and perhaps written, before those beside it are known; so what it gives is marked, and
from two schemas alone is known whether the rows of both go into one table. Marks stand in the
metadata of fields, on their way and in the ledger, and never in an output.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache, wraps
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    import pyarrow as pa

Path: TypeAlias = "tuple[str | None, ...]"
"""Of a value inside the cells of a column: names of fields, ``None`` for what a list holds."""
Marks: TypeAlias = "dict[Path, frozenset[str]]"

_MARK = b"batchflow"
_EXTENSION = (b"ARROW:extension:name", b"ARROW:extension:metadata")
"""Metadata of a field whose extension type this process has not registered; its type is the storage."""
_T = TypeVar("_T")
WORDS = {
    "wide": "whole numbers beyond 2**53",
    "huge": "whole numbers beyond 2**63",
    "us": "times beyond what nanoseconds hold",
    "ms": "times beyond what microseconds hold",
    "s": "times beyond what milliseconds hold",
}
"""What the values of a marked column are, which some types that hold others of its type cannot hold."""
_NEGATIVE = "negative"
"""Mark of whole numbers below zero, which `uint64` cannot hold."""
_FLOAT_EXACT = 2**53
_LARGEST = 2**63 - 1
_UNITS = ("s", "ms", "us", "ns")


def type_cache(function: Callable[..., _T]) -> Callable[..., _T]:
    """Cache what a function says of an Arrow type; extension types that users define have no hash.

    It may not return the type: types are equal although the metadata of fields inside them differs.
    """
    cached = cache(function)

    @wraps(function)
    def call(kind: Any, **options: Any) -> _T:
        try:
            hash(kind)
        except TypeError:
            return function(kind, **options)
        return cached(kind, **options)

    return call


def extension_of(field: pa.Field[Any]) -> dict[bytes, bytes]:
    """Return the metadata that names the extension type of a field where that type is not registered."""
    return {key: value for key, value in (field.metadata or {}).items() if key in _EXTENSION}


def annotated_schema(table: pa.Table) -> pa.Schema:
    """Return the schema of a table, with marks where its values are too large for a wider type."""
    import pyarrow as pa

    columns = zip(table.schema, table.columns, strict=True)
    return pa.schema([with_marks(field, dict(_marks(column.chunks, field.type, ()))) for field, column in columns])


def unmarked(schema: pa.Schema) -> pa.Schema:
    """Return a schema without marks: what users see."""
    import pyarrow as pa

    return pa.schema([with_marks(field, {}) for field in schema])


def marks_of(field: pa.Field[Any]) -> Marks:
    """Return the marks of a field."""
    text = (field.metadata or {}).get(_MARK)
    return {tuple(path): frozenset(found) for path, found in json.loads(text)} if text else {}


def with_marks(field: pa.Field[Any], marks: Marks) -> pa.Field[Any]:
    """Return a field with marks, and of its own metadata only the name of an extension type."""
    import pyarrow as pa

    listed = sorted(([path, sorted(found)] for path, found in marks.items()), key=str)
    metadata = extension_of(field) if field.metadata else {}
    if marks:
        metadata[_MARK] = json.dumps(listed).encode()
    return pa.field(field.name, field.type, metadata=metadata or None)


def _marks(chunks: Sequence[Any], kind: Any, path: Path) -> Iterator[tuple[Path, frozenset[str]]]:
    """Yield the marks of some arrays of one type."""
    import pyarrow as pa

    if not chunks or not _can_be_marked(kind):
        return
    if pa.types.is_dictionary(kind):
        yield from _marks([chunk.dictionary for chunk in chunks], kind.value_type, path)
    elif pa.types.is_run_end_encoded(kind):
        yield from _marks([chunk.values for chunk in chunks], kind.value_type, path)
    elif inside(kind):
        for name, parts in _parts(chunks, kind):
            yield from _marks(parts, parts[0].type, (*path, name))
    elif found := _mark(chunks, kind):
        yield path, found


def _parts(chunks: Sequence[Any], kind: Any) -> Iterator[tuple[str | None, list[Any]]]:
    """Yield what the cells of nested arrays hold, by the names that `inside` gives."""
    import pyarrow as pa

    types = pa.types
    if types.is_map(kind):  # cannot be flattened
        chunks = [chunk.cast(pa.list_(pa.struct([kind.key_field, kind.item_field]))).flatten() for chunk in chunks]
    if types.is_map(kind) or types.is_struct(kind):
        columns = [chunk.flatten() for chunk in chunks]
        for index, name in enumerate(("key", "value") if types.is_map(kind) else [field.name for field in kind]):
            yield name, [column[index] for column in columns]
    else:
        yield None, [chunk.flatten() for chunk in chunks]


def _mark(chunks: Sequence[Any], kind: Any) -> frozenset[str]:
    """Return the marks of arrays of numbers or times."""
    import pyarrow as pa

    try:
        from pyarrow._compute import call_function  # pyarrow.compute makes 300 functions: 30 ms of each worker
    except ImportError:  # it is a private module
        from pyarrow.compute import call_function

    whole = pa.types.is_integer(kind)
    numbers = chunks if whole else [chunk.view(pa.int64()) for chunk in chunks]
    found = [call_function("min_max", [chunk]).as_py() for chunk in numbers]
    ends = [end for pair in found for end in pair.values() if end is not None]
    top = max(map(abs, ends), default=0)
    if whole:
        wide = "huge" if max(ends, default=0) > _LARGEST else "wide" if top > _FLOAT_EXACT else ""
        return frozenset(filter(None, (wide, _NEGATIVE if min(ends, default=0) < 0 else "")))
    for finer in _UNITS[_UNITS.index(kind.unit) + 1 :]:
        top *= 1000
        if top > _LARGEST:
            return frozenset({_UNITS[_UNITS.index(finer) - 1]})
    return frozenset()


@type_cache
def _can_be_marked(kind: Any) -> bool:
    """Whether values of a type can be too large for a type that holds others of it."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _can_be_marked(kind.value_type)
    if held := inside(kind):
        return any(map(_can_be_marked, held.values()))
    if types.is_timestamp(kind) or types.is_duration(kind):
        return bool(kind.unit != "ns")
    return types.is_integer(kind) and (bool(kind.bit_width == 64) or types.is_signed_integer(kind))


def at_path(kind: Any, path: Path) -> Any:
    """Return the type at a path inside a type."""
    for step in path:
        kind = inside(kind)[step]
    return kind


def would_lose_precision(marks: frozenset[str], kind: Any) -> bool:
    """Whether values with these marks do not fit a type."""
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        kind = kind.value_type
    for mark in marks:
        if mark in _UNITS:
            if kind.unit in _UNITS[_UNITS.index(mark) + 1 :]:
                return True
        elif mark == _NEGATIVE:
            if types.is_unsigned_integer(kind):
                return True
        elif types.is_floating(kind) or (mark == "huge" and types.is_signed_integer(kind)):
            return True
    return False


def inside(kind: Any) -> dict[str | None, Any]:
    """Return the types of what cells of a type hold, by name, without one in a list; empty if they are flat."""
    import pyarrow as pa

    types = pa.types
    if types.is_struct(kind):
        return {field.name: field.type for field in kind}
    if types.is_map(kind):
        return {"key": kind.key_type, "value": kind.item_type}
    if (
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    ):
        return {None: kind.value_type}
    return {}
