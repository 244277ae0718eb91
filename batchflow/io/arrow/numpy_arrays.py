"""NumPy scalars and arrays as Arrow arrays, with the type that NumPy says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

Converter: TypeAlias = "Callable[[Sequence[Any], int], Any]"
"""Makes an array of values of one type, which are inside so many lists and mappings."""


def numpy_converter(kind: type, lists: Converter) -> Converter | None:
    """Return what makes arrays of values of a type of NumPy.

    Parameters
    ----------
    lists
        Makes arrays of lists.
    """
    import numpy as np

    if issubclass(kind, np.ma.MaskedArray):
        return lambda cells, depth: lists([cell.tolist() for cell in cells], depth)
    if issubclass(kind, np.ndarray):
        return lambda cells, depth: _ndarrays(cells, depth, lists)
    if issubclass(kind, np.bool_ | np.integer | np.floating | np.datetime64 | np.timedelta64):
        return lambda cells, _: _from_numpy(np.array(cells))
    return None


def _from_numpy(values: Any) -> Any:
    """Return a NumPy array of one dimension as an Arrow array."""
    import numpy as np
    import pyarrow as pa

    if values.dtype.kind in "Mm":
        return _numpy_times(values)
    if values.dtype.kind in "US":
        return pa.array(values.tolist())
    if values.dtype.kind not in "biuf":
        message = f"a NumPy array of {values.dtype}: return .tolist()"
        raise TypeError(message)
    if values.dtype == np.longdouble and values.dtype.itemsize > 8:
        message = f"a NumPy number of {values.dtype}: return a float"
        raise TypeError(message)
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return pa.array(np.ascontiguousarray(native), from_pandas=False)


_DATES = {"Y": "D", "M": "D", "W": "D", "D": "D", "h": "s", "m": "s"}
_SPANS = {"W": "s", "D": "s", "h": "s", "m": "s"}
"""Units that Arrow has in the place of those that it lacks."""


def _numpy_times(values: Any) -> Any:
    """Return dates, times and durations of NumPy; NaT is null."""
    import numpy as np
    import pyarrow as pa

    is_date = values.dtype.kind == "M"
    unit = np.datetime_data(values.dtype)[0]
    target: Any = (_DATES if is_date else _SPANS).get(unit, unit)
    missing = np.isnat(values)
    if missing.all():
        return pa.nulls(len(values))
    if target not in {"D", "s", "ms", "us", "ns"}:
        message = f"a NumPy time in the unit {unit!r}: convert it with .astype('{values.dtype.kind}8[us]')"
        raise ValueError(message)
    made = values.astype(f"{values.dtype.kind}8[{target}]")
    if not ((made.astype(values.dtype) == values) | missing).all():
        message = f"a NumPy time in the unit {unit!r} that is beyond 64 bits in the unit {target!r}"
        raise ValueError(message)
    numbers = pa.array(made.astype(np.int64), mask=missing)
    if target == "D":
        return numbers.cast(pa.int32()).cast(pa.date32())
    kind = pa.timestamp(target) if is_date else pa.duration(target)
    return numbers.cast(kind)


def _ndarrays(cells: Sequence[Any], depth: int, lists: Converter) -> Any:
    """Return arrays of one type and number of dimensions as lists."""
    import numpy as np
    import pyarrow as pa

    first = cells[0]
    if first.ndim == 0:
        message = "a NumPy array without dimensions: return .item()"
        raise TypeError(message)
    if first.ndim > 1 or first.dtype == object:
        return lists([list(cell) for cell in cells], depth)
    offsets = list(accumulate(map(len, cells), initial=0))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _from_numpy(np.concatenate(cells)))
