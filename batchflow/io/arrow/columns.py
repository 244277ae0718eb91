"""Arrow columns as Python values: each value exactly, or the reason why Python has no such value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from batchflow.io.arrow.exact_types import MapItems, NanoTime
from batchflow.io.arrow.precision import type_cache
from batchflow.io.arrow.schema import is_any_list, without_views


def column_values(column: Any) -> tuple[list[Any], dict[int, str]]:
    """Return the values of a column, and why some of them cannot be given, by index.

    Timestamps and durations in nanoseconds are those of pandas, times of day `NanoTime`, and cells of map
    columns `MapItems`.
    """
    import pyarrow as pa

    if _is_plain(column.type):
        try:
            return column.to_pylist(), {}
        except (pa.ArrowException, OverflowError, ValueError, TypeError):
            pass
    values: list[Any] = []
    refused: dict[int, str] = {}
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        made, bad = _array_values(chunk)
        refused.update({len(values) + index: reason for index, reason in bad.items()})
        values += made
    return values, refused


@type_cache
def _is_plain(kind: Any) -> bool:
    """Whether Arrow's own `to_pylist` changes no value of a type."""
    import pyarrow as pa

    types = pa.types
    if types.is_map(kind) or kind == pa.time64("ns"):
        return False
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind) or is_any_list(kind):
        return _is_plain(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return _is_plain(kind.storage_type)
    return all(_is_plain(kind.field(index).type) for index in range(kind.num_fields))


def _array_values(array: Any) -> tuple[list[Any], dict[int, str]]:
    """Return the values of an array that Arrow does not convert, or not exactly."""
    import pyarrow as pa

    types, kind = pa.types, array.type
    if kind == pa.time64("ns"):
        return [None if tick is None else NanoTime.of(tick) for tick in array.view(pa.int64()).to_pylist()], {}
    simpler = _simpler(array)
    if simpler is not array:
        return column_values(simpler)
    if types.is_map(kind):
        lists = array.cast(pa.list_(pa.struct([kind.key_field, kind.item_field])))
        (keys, bad), (items, more) = map(column_values, lists.flatten().flatten())
        return _cut(lists, list(zip(keys, items, strict=True)), {**bad, **more}, partial(MapItems, kind=kind))
    if is_any_list(kind):
        return _cut(array, *column_values(array.flatten()), list)
    if types.is_struct(kind) and len({field.name for field in kind}) == kind.num_fields:
        return _struct_values(array)
    return _scalar_values(array)


def _simpler(array: Any) -> Any:
    """Return the values of an array in a simpler type, if there is one."""
    import pyarrow as pa

    if pa.types.is_dictionary(array.type):
        return array.dictionary_decode()
    if isinstance(array.type, pa.BaseExtensionType) and not _is_plain(array.type.storage_type):
        return array.storage
    return without_views(array)


def _cut(
    array: Any, values: Sequence[Any], bad: dict[int, str], make: Callable[[Sequence[Any]], Any]
) -> tuple[list[Any], dict[int, str]]:
    """Return cells of a list or map column, cut out of the values that they hold."""
    from pyarrow.compute import list_value_length

    lengths = list_value_length(array).to_pylist()
    cells: list[Any] = []
    refused: dict[int, str] = {}
    start = 0
    for index, length in enumerate(lengths):
        stop = start + (length or 0)
        cells.append(None if length is None else make(values[start:stop]))
        if bad and (reason := next((bad[at] for at in range(start, stop) if at in bad), None)) is not None:
            refused[index] = reason
        start = stop
    return cells, refused


def _struct_values(array: Any) -> tuple[list[Any], dict[int, str]]:
    names = [field.name for field in array.type]
    columns, refused = [], {}
    valid = array.is_valid().to_pylist()
    for index in range(len(names)):
        made, bad = column_values(array.field(index))
        columns.append(made)
        refused.update({at: reason for at, reason in bad.items() if valid[at]})
    rows = zip(*columns, strict=True)
    return [
        dict(zip(names, row, strict=True)) if is_valid else None for is_valid, row in zip(valid, rows, strict=True)
    ], refused


def _scalar_values(array: Any) -> tuple[list[Any], dict[int, str]]:
    """Return values one by one, where some of them cannot be converted."""
    import pyarrow as pa

    values: list[Any] = []
    refused: dict[int, str] = {}
    for index in range(len(array)):
        try:
            one = array.slice(index, 1)
            values.append(one.to_pylist()[0])
        except (pa.ArrowException, OverflowError, ValueError, TypeError, KeyError) as error:
            values.append(None)
            refused[index] = _reason(array.type, error)
    return values, refused


def _reason(kind: Any, error: BaseException) -> str:
    import pyarrow as pa

    types, cure = pa.types, "use map_batches"
    if types.is_timestamp(kind) and kind.tz is not None and "zoneinfo" in str(error):
        return f"a {kind}, a time zone that Python does not know: {cure}"
    if types.is_temporal(kind) and "anosecond" in str(error):
        return f"a {kind} with nanoseconds, which only pandas has values for: install pandas, or {cure}"
    if types.is_temporal(kind):
        return f"a {kind} beyond the years 1 to 9999 of Python: {cure}"
    return f"a {kind} that Python has no value for ({error}): {cure}"
