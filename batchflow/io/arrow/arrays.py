"""Python values as Arrow arrays: each value exactly, or an error.

Arrow infers one type for a mixed column and converts some values to it silently: `uint64` beside a float
becomes -1.0, a `float16` beside an int loses its fraction. So values are converted by type, each type
for itself, and `batchflow.io.arrow.schema` decides whether the arrays go together, as it does for chunks.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from functools import cache, lru_cache
from itertools import accumulate, chain
from typing import Any

from batchflow.core.text import one
from batchflow.errors import SchemaError
from batchflow.io.arrow.exact_types import MapItems, NanoTime
from batchflow.io.arrow.numpy_arrays import Converter, numpy_converter
from batchflow.io.arrow.precision import inside, type_cache

_MAX_DEPTH = 64
_LOOP_DEPTH = 8
"""Depth at which values are searched for loops; few are nested as deep."""
_LISTS = (list, tuple, range, deque, array)
_PLAIN = {str, bool, bytes, float}
"""Types that Arrow converts exactly; a column may hold ``None`` as well."""

_NUMBERS = {int, float}


def kinds_of(values: Sequence[Any]) -> set[type]:
    """Return the types of some values; where all are of one, as most are, in half the time of a plain set."""
    if len(values) == 0:  # an array has no truth
        return set()
    first = type(values[0])
    return {first} if list(map(type, values)).count(first) == len(values) else set(map(type, values))


def to_array(cells: Sequence[Any], depth: int = 0) -> Any:
    """Return values as an array whose type holds each of them exactly.

    Parameters
    ----------
    depth
        Lists and mappings that the values are in.

    Raises
    ------
    ValueError, TypeError, OverflowError, pyarrow.ArrowException
        If there is no such type; the message says why, but names no column.
    """
    kinds = kinds_of(cells)
    is_full = type(None) not in kinds
    kinds.discard(type(None))
    array = _quick_array(cells, kinds)
    if array is not None:
        return array
    if depth > _MAX_DEPTH:
        message = f"nested more than {_MAX_DEPTH} levels deep"
        raise ValueError(message)
    if depth == _LOOP_DEPTH:
        _refuse_loops(cells)
    first: type = type(cells[0])
    if is_full and len(kinds) == 1 and _key(first) is None:
        return _converter(first)(cells, depth)
    groups = _groups(cells, kinds)
    if len(groups) == 1 and sum(map(len, groups.values())) == len(cells):
        return _converter(first)(cells, depth)
    return _together(cells, groups, depth)


def _quick_array(cells: Sequence[Any], kinds: set[type]) -> Any:
    """Return values of types that Arrow itself converts exactly as an array."""
    import pyarrow as pa

    if not kinds:
        return pa.nulls(len(cells))
    if len(kinds) == 1 and kinds <= _PLAIN:
        return pa.array(cells)
    if kinds <= _NUMBERS:
        with suppress(OverflowError, pa.ArrowException):  # whole numbers that an int64 or a float does not hold
            return pa.array(cells)
    return None


def _groups(cells: Sequence[Any], kinds: set[type]) -> dict[Any, list[int]]:
    """Return the indexes of values by their type, and by what else tells their Arrow types apart."""
    groups: dict[Any, list[int]] = {}
    keys = {kind: _key(kind) for kind in kinds}
    for index, cell in enumerate(cells):
        if cell is not None:
            kind = type(cell)
            key = keys[kind]
            groups.setdefault((kind, None if key is None else key(cell)), []).append(index)
    return groups


def _together(cells: Sequence[Any], groups: Mapping[Any, Sequence[int]], depth: int) -> Any:
    """Return cells of several types, or with nulls, as one array."""
    import pyarrow as pa

    from batchflow.io.arrow.precision import annotated_schema
    from batchflow.io.arrow.schema import cast, describe, unify

    arrays = [_converter(kind)([cells[at] for at in indexes], depth) for (kind, _), indexes in groups.items()]
    if len(arrays) > 1:
        schemas = [annotated_schema(pa.table({"": each})) for each in arrays]
        schema = None
        try:
            for each in schemas:
                schema = unify(schema, each)
        except SchemaError as error:
            kinds = list(dict.fromkeys(describe(each.field(0)) for each in schemas))
            message = f"{' and '.join(kinds)} in one column: give it one type in the function"
            raise ValueError(message) from error
        assert schema is not None
        arrays = [cast(each, schema.field(0).type) for each in arrays]
    places: list[int | None] = [None] * len(cells)
    for number, at in enumerate(chain.from_iterable(groups.values())):
        places[at] = number
    joined = pa.concat_arrays(arrays) if len(arrays) > 1 else arrays[0]
    return joined.take(pa.array(places, pa.int64()))


def is_convertible(kind: type) -> bool:
    """Whether values of a type may become cells of a column."""
    return _converter(kind) is not _refuse


@lru_cache(256)
def _converter(kind: type) -> Converter:
    """Return what makes arrays of values of a type."""
    found = _library_converter(kind)
    if found is not None:
        return found
    for base, converter in _bases():
        if issubclass(kind, base):
            return converter
    is_list = issubclass(kind, _LISTS) and not (hasattr(kind, "_fields") or hasattr(kind, "n_fields"))
    return _structs if issubclass(kind, Mapping) else _lists if is_list else _refuse


@cache
def _bases() -> list[tuple[type, Converter]]:
    """Return converters by type; the first that a type is a subclass of is its own."""
    from datetime import date, datetime, time, timedelta
    from decimal import Decimal
    from uuid import UUID

    return [
        (bool, _infer),
        (int, _integers),
        (str, _texts),
        (bytes, _infer),
        (float, _floats),
        (bytearray, _infer),
        (memoryview, _views),
        (datetime, _datetimes),
        (date, _infer),
        (NanoTime, _nano_times),
        (time, _times),
        (timedelta, _infer),
        (Decimal, _decimals),
        (UUID, _infer),
        (MapItems, _maps),
    ]


def _library_converter(kind: type) -> Converter | None:
    """Return what makes arrays of values of a type of pandas, Polars, NumPy or Arrow."""
    library, name = kind.__module__.partition(".")[0], kind.__name__
    if library == "numpy":
        return numpy_converter(kind, _lists)
    if library == "pyarrow" or name == "MonthDayNano":
        return _arrow_converter(kind)
    known = {"NaTType": _nulls, "NAType": _nulls, "Timestamp": _timestamps, "Timedelta": _timedeltas}
    if library == "pandas" and name in known:
        return known[name]
    method = {"pandas": "to_numpy", "polars": "to_list"}.get(library, "")
    if hasattr(kind, method) and not hasattr(kind, "columns"):  # no frames
        return lambda cells, depth: _lists([getattr(cell, method)() for cell in cells], depth)
    return None


def _arrow_converter(kind: type) -> Converter | None:
    if hasattr(kind, "null_count"):
        return _arrow_arrays
    return _scalars if hasattr(kind, "as_py") else _infer if kind.__name__ == "MonthDayNano" else None


@lru_cache(256)
def _key(kind: type) -> Callable[[Any], Any] | None:
    """Return what tells values of one Python type apart that have different Arrow types."""
    from datetime import datetime

    library, name = kind.__module__.partition(".")[0], kind.__name__
    keys: dict[tuple[str, str], Callable[[Any], Any]] = {
        ("numpy", "datetime64"): _dtype_of,
        ("numpy", "timedelta64"): _dtype_of,
        ("numpy", "ndarray"): lambda cell: (cell.dtype.str, cell.ndim),
        ("pandas", "Timestamp"): lambda cell: (cell.unit == "ns", _zone_of(cell)),
        ("pandas", "Timedelta"): lambda cell: cell.unit == "ns",
    }
    if library == "pyarrow" and (hasattr(kind, "as_py") or hasattr(kind, "null_count")):
        return lambda cell: _type_key(cell.type)
    is_zoned = issubclass(kind, datetime) and name != "NaTType"
    return keys.get((library, name)) or (_zone_of if is_zoned else None)


def _dtype_of(cell: Any) -> str:
    return str(cell.dtype.str)


def _refuse(cells: Sequence[Any], depth: int) -> Any:
    del depth
    kind = type(cells[0])
    name = one(kind.__qualname__)
    if issubclass(kind, set | frozenset):
        message = f"{name}, whose elements have no order: return sorted(...)"
    elif issubclass(kind, tuple):
        message = f"{name}, which is a tuple with names: return a dict, ._asdict() of a namedtuple"
    elif hasattr(kind, "__dataclass_fields__"):
        message = f"{name}, which is no value of a table: return dataclasses.asdict(...)"
    elif issubclass(kind, Enum):
        message = f"{name}, which is no value of a table: return its .value or .name"
    else:
        message = f"{name}, which is no value of a table: return text, numbers, times, lists or dicts"
    raise TypeError(message)


def _infer(cells: Sequence[Any], depth: int) -> Any:
    import pyarrow as pa

    del depth
    return pa.array(cells)


def _nulls(cells: Sequence[Any], depth: int) -> Any:
    import pyarrow as pa

    del depth
    return pa.nulls(len(cells))


def _integers(cells: Sequence[Any], depth: int) -> Any:
    import pyarrow as pa

    del depth
    numbers = [int.__int__(cell) for cell in cells]
    try:
        return pa.array(numbers, pa.int64())
    except (OverflowError, pa.ArrowException):
        if min(numbers) >= 0 and max(numbers) < 2**64:
            return pa.array(numbers, pa.uint64())
        message = "a whole number too large for 64 bits: return a Decimal or text"
        raise ValueError(message) from None


def _floats(cells: Sequence[Any], depth: int) -> Any:
    import pyarrow as pa

    del depth
    return pa.array([float.__float__(cell) for cell in cells], pa.float64())


def _texts(cells: Sequence[Any], depth: int) -> Any:
    import pyarrow as pa

    del depth
    return pa.array([str.__str__(cell) for cell in cells], pa.string())


def _views(cells: Sequence[Any], depth: int) -> Any:
    import pyarrow as pa

    del depth
    if any(cell.ndim != 1 or cell.itemsize != 1 for cell in cells):
        message = "a memoryview that is no plain bytes: return .tobytes() or .tolist()"
        raise TypeError(message)
    return pa.array([cell.tobytes() for cell in cells], pa.binary())


def _decimals(cells: Sequence[Any], depth: int) -> Any:
    import pyarrow as pa

    del depth
    if not all(cell.is_finite() for cell in cells):
        message = "a Decimal that is no number (NaN or Infinity): return None or a float"
        raise ValueError(message)
    return pa.array(cells)


def _scalars(cells: Sequence[Any], depth: int) -> Any:
    import pyarrow as pa

    from batchflow.io.arrow.schema import without_views

    del depth
    kind = cells[0].type
    if not _has_extension(kind):
        return without_views(pa.array(cells, kind))
    return pa.concat_arrays([pa.repeat(cell, 1) if cell.is_valid else pa.nulls(1, kind) for cell in cells])


@type_cache
def _has_extension(kind: Any) -> bool:
    import pyarrow as pa

    return isinstance(kind, pa.BaseExtensionType) or any(map(_has_extension, inside(kind).values()))


def _type_key(kind: Any) -> Any:
    """Return what tells an Arrow type from others; an extension type that users define has no hash."""
    import pyarrow as pa

    try:
        hash(kind)
    except TypeError:
        return pa.schema([pa.field("", kind)]).serialize().to_pybytes()
    return kind


def _arrow_arrays(cells: Sequence[Any], depth: int) -> Any:
    """Return arrays of one Arrow type as lists of that type."""
    import pyarrow as pa

    from batchflow.io.arrow.schema import without_views

    del depth
    offsets = list(accumulate(map(len, cells), initial=0))
    chunks = [without_views(chunk) for cell in cells for chunk in getattr(cell, "chunks", [cell])]
    values = pa.concat_arrays(chunks or [without_views(pa.nulls(0, cells[0].type))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


# --- times ----------------------------------------------------------------------------------------


def _times(cells: Sequence[Any], depth: int) -> Any:
    if any(cell.tzinfo is not None for cell in cells):
        message = "a time of day with a time zone: return a datetime, or drop the zone with .replace(tzinfo=None)"
        raise ValueError(message)
    return _infer(cells, depth)


def _nano_times(cells: Sequence[Any], depth: int) -> Any:
    import pyarrow as pa

    del depth
    return pa.array([cell.ticks for cell in cells], pa.int64()).cast(pa.time64("ns"))


def _zone_of(cell: Any) -> str | None:
    """Return the zone of a datetime as Arrow names it; UTC if it has no name, ``None`` for a naive one."""
    zone = cell.tzinfo
    if zone is None:
        return None
    if cell.utcoffset() is None:
        message = f"a datetime whose time zone {zone!r} has no offset"
        raise ValueError(message)
    try:
        name = _ZONES.get(zone)
    except TypeError:  # it has no hash
        return _zone_name(zone)
    if name is None:
        if len(_ZONES) >= _MAX_ZONES:
            _ZONES.clear()
        name = _ZONES[zone] = _zone_name(zone)
    return name


_ZONES: dict[Any, str] = {}
_MAX_ZONES = 1000


def _zone_name(zone: Any) -> str:
    import pyarrow as pa

    try:
        name: str = pa.lib.tzinfo_to_string(zone)
        pa.lib.string_to_tzinfo(name)
    except Exception:
        return "UTC"
    return "UTC" if name in {"", "+00:00"} else name  # equal zones need one name, as names are cached


def _datetimes(cells: Sequence[Any], depth: int) -> Any:
    from datetime import UTC

    import pyarrow as pa

    del depth
    zone = _zone_of(cells[0])
    if zone == "UTC":  # perhaps a zone that Arrow does not know
        cells = [cell.astimezone(UTC) for cell in cells]
    return pa.array(cells, pa.timestamp("us", zone))


def _timestamps(cells: Sequence[Any], depth: int) -> Any:
    """Return timestamps of pandas; those in nanoseconds keep them."""
    import pyarrow as pa

    if cells[0].unit != "ns":
        return _datetimes([cell.to_pydatetime() for cell in cells], depth)
    return pa.array([cell.value for cell in cells], pa.int64()).cast(pa.timestamp("ns", _zone_of(cells[0])))


def _timedeltas(cells: Sequence[Any], depth: int) -> Any:
    import pyarrow as pa

    if cells[0].unit != "ns":
        return _infer([cell.to_pytimedelta() for cell in cells], depth)
    return pa.array([cell.value for cell in cells], pa.int64()).cast(pa.duration("ns"))


# --- nested values --------------------------------------------------------------------------------


def _lists(cells: Sequence[Any], depth: int) -> Any:
    import pyarrow as pa

    offsets = list(accumulate(map(len, cells), initial=0))
    values = to_array(list(chain.from_iterable(cells)), depth + 1)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def _structs(cells: Sequence[Any], depth: int) -> Any:
    import pyarrow as pa

    names = list(dict.fromkeys(chain.from_iterable(cells)))
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if wrong is not None:
        message = f"a mapping with the key {wrong!r}: names of fields are text"
        raise TypeError(message)
    if not names:
        return pa.array([{}] * len(cells), pa.struct([]))
    columns = [to_array([cell.get(name) for cell in cells], depth + 1) for name in names]
    return pa.StructArray.from_arrays(columns, names)


def _maps(cells: Sequence[Any], depth: int) -> Any:
    import pyarrow as pa

    pairs = list(chain.from_iterable(cells))
    if not pairs and all(cell.kind is not None and cell.kind == cells[0].kind for cell in cells):
        return pa.array([[]] * len(cells), cells[0].kind)
    offsets = list(accumulate(map(len, cells), initial=0))
    keys, items = (to_array([pair[part] for pair in pairs], depth + 1) for part in (0, 1))
    make: Any = pa.MapArray
    return make.from_arrays(pa.array(offsets, pa.int32()), keys, items)


def _refuse_loops(cells: Sequence[Any]) -> None:
    """Raise `ValueError` if a value contains itself: Arrow would recurse until the process dies."""
    done: set[int] = set()
    path: set[int] = set()
    stack: list[tuple[Any, Any]] = [(None, iter(cells))]
    while stack:
        owner, held = stack[-1]
        for value in held:
            if not isinstance(value, Mapping | list | tuple) or id(value) in done:
                continue
            if id(value) in path:
                message = "a value that contains itself"
                raise ValueError(message)
            path.add(id(value))
            stack.append((value, iter(value.values() if isinstance(value, Mapping) else value)))
            break
        else:
            stack.pop()
            path.discard(id(owner))
            done.add(id(owner))
