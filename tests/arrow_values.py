"""Values of every type, and what they mean, to compare what was given with what came back."""

from __future__ import annotations

import math
from collections import OrderedDict, namedtuple
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Context, Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import strategies as st

from batchflow.io.arrow.exact_types import MapItems, NanoTime

EPOCH = datetime(1970, 1, 1)
MICROSECOND = timedelta(microseconds=1)


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    YES = "yes"


class Label(str):
    __slots__ = ()


@dataclass
class Point:
    x: int


Pair = namedtuple("Pair", "a b")
LOOP: list = []
LOOP.append(LOOP)
TREE: dict = {"a": {}}
TREE["a"]["b"] = [TREE]
NOON = datetime(2024, 2, 29, 12, 0, 0, 123456)

SCALARS = {
    "none": None,
    "true": True,
    "int": 7,
    "negative": -7,
    "wide": 2**53 + 1,
    "largest": 2**63 - 1,
    "huge": 2**63,
    "uint64 max": 2**64 - 1,
    "beyond": 2**70,
    "float": 0.5,
    "nan": math.nan,
    "inf": -math.inf,
    "text": "é",
    "bytes": b"\xff",
    "bytearray": bytearray(b"ab"),
    "memoryview": memoryview(b"ab"),
    "decimal": Decimal("1.50"),
    "exponent": Decimal("1E+20"),
    "decimal nan": Decimal("NaN"),
    "long decimal": Decimal("1" * 40 + ".5"),
    "date": date(2024, 2, 29),
    "naive": NOON,
    "first": datetime(1, 1, 1),
    "last": datetime(9999, 12, 31, 23, 59, 59, 999999),
    "utc": NOON.replace(tzinfo=UTC),
    "offset": NOON.replace(tzinfo=timezone(timedelta(hours=2))),
    "seconds": NOON.replace(tzinfo=timezone(timedelta(seconds=3601))),
    "zone": NOON.replace(tzinfo=ZoneInfo("Europe/Berlin")),
    "fold": datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    "time": time(1, 2, 3, 4),
    "zoned time": time(1, tzinfo=UTC),
    "nano time": NanoTime(1, 2, 3, 4, nanosecond=5),
    "timedelta": timedelta(days=-1, microseconds=1),
    "longest": timedelta.max,
    "uuid": UUID(int=5),
    "enum": Colour.RED,
    "int enum": Level.LOW,
    "str enum": Word.YES,
    "str subclass": Label("x"),
    "tuple": (1, 2),
    "pair": Pair(1, 2),
    "set": {1},
    "dataclass": Point(1),
    "list": [1, None],
    "empty list": [],
    "texts": ["a"],
    "dict": {"a": 1, "b": None},
    "other dict": {"b": "x"},
    "empty dict": {},
    "ordered": OrderedDict(a=1),
    "nested": {"a": [{"b": [0.5]}]},
    "map": MapItems([("a", 1)]),
    "loop": LOOP,
    "tree": TREE,
    "complex": 1j,
    "object": object(),
    "surrogate": "\ud800",
    "np.int8": np.int8(-1),
    "np.int16": np.int16(3),
    "np.int32": np.int32(2**31 - 1),
    "np.int64": np.int64(2**60),
    "np.uint8": np.uint8(255),
    "np.uint16": np.uint16(3),
    "np.uint32": np.uint32(2**32 - 1),
    "np.uint64": np.uint64(2**64 - 1),
    "np.float16": np.float16(1.5),
    "np.float32": np.float32(0.1),
    "np.float64": np.float64(0.1),
    "np.longdouble": np.longdouble(1),
    "np.bool": np.bool_(True),
    "np.str": np.str_("s"),
    "np.bytes": np.bytes_(b"s"),
    "np.complex": np.complex128(1j),
    "np.array": np.arange(2),
    "np.floats": np.array([0.5]),
    "np.matrix": np.ones((2, 2)),
    "np.objects": np.array([1, "a"], object),
    "np.days": np.array(["2024-01-01"], "M8[D]"),
    "np.none": np.array(5),
    "year": np.datetime64("2024"),
    "month": np.datetime64("2024-02"),
    "day": np.datetime64("2024-02-29"),
    "hour": np.datetime64("2024-02-29T12"),
    "s": np.datetime64(1, "s"),
    "ms": np.datetime64(1, "ms"),
    "us": np.datetime64(1, "us"),
    "ns": np.datetime64(1, "ns"),
    "ps": np.datetime64(1, "ps"),
    "nat": np.datetime64("NaT"),
    "td day": np.timedelta64(1, "D"),
    "td ms": np.timedelta64(1, "ms"),
    "td ns": np.timedelta64(1, "ns"),
    "td year": np.timedelta64(1, "Y"),
    "pd.Timestamp": pd.Timestamp("2024-01-01 00:00:00.123456789"),
    "pd zone": pd.Timestamp("2024-01-01 00:00:00.123456789", tz="Asia/Tokyo"),
    "pd us": pd.Timestamp(NOON),
    "pd.Timedelta": pd.Timedelta("1ns"),
    "pd.NaT": pd.NaT,
    "pd.NA": pd.NA,
    "pd.Series": pd.Series([1, 2]),
    "pa.scalar": pa.scalar(5, pa.int8()),
    "pa.array": pa.array([1]),
    "interval": pa.MonthDayNano([1, 2, 3]),
}
"""Values that people return, by name."""

ABSENT = {"NaTType", "NAType", "NoneType"}


def meaning(value: object) -> object:  # noqa: C901, PLR0912 - a table of cases
    """Return what a value is, whatever library it is of: values of one meaning are equal, others are not."""
    if type(value).__name__ in ABSENT or (isinstance(value, np.datetime64 | np.timedelta64) and np.isnat(value)):
        return None
    if isinstance(value, pa.Scalar):
        return meaning(value.as_py())
    if isinstance(value, bool | np.bool_):
        return "bool", bool(value)
    if isinstance(value, np.timedelta64):
        return "span", int(value.astype("m8[ns]").astype(int))
    if isinstance(value, int | float | Decimal | np.integer | np.floating):
        if value != value or value in (math.inf, -math.inf):
            return "number", str(float(value))
        return "number", Fraction(
            value
            if isinstance(value, Decimal)
            else int(value)
            if isinstance(value, int | np.integer)
            else float(value)
        )
    if isinstance(value, str):
        return "text", str.__str__(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return "bytes", bytes(value)
    if isinstance(value, pd.Timedelta):
        return "span", value.as_unit("ns").value
    if isinstance(value, timedelta):
        return "span", value // MICROSECOND * 1000
    if isinstance(value, np.datetime64):
        if np.datetime_data(value.dtype)[0] in "YMWD":
            return meaning(value.astype("M8[D]").item())
        return "naive", int(value.astype("M8[ns]").astype(int))
    if isinstance(value, datetime):
        nanosecond = getattr(value, "nanosecond", 0)
        plain = value.to_pydatetime(warn=False) if isinstance(value, pd.Timestamp) else value
        if plain.tzinfo is None:
            return "naive", (plain - EPOCH) // MICROSECOND * 1000 + nanosecond
        return "instant", (plain - EPOCH.replace(tzinfo=UTC)) // MICROSECOND * 1000 + nanosecond
    if isinstance(value, date):
        return "date", value.toordinal()
    if isinstance(value, time):
        return "time", NanoTime.ticks.fget(value) if isinstance(value, NanoTime) else meaning(
            datetime.combine(EPOCH, value)
        )[1]
    if isinstance(value, UUID):
        return "uuid", value.int
    if type(value).__name__ == "MonthDayNano":
        return "interval", tuple(value)
    if isinstance(value, MapItems):
        return "map", tuple((meaning(key), meaning(item)) for key, item in value)
    if isinstance(value, Mapping):
        return "struct", tuple(
            sorted((name, held) for name, cell in value.items() if (held := meaning(cell)) is not None)
        )
    if isinstance(value, np.ndarray):
        return meaning(list(value))
    if isinstance(value, list | tuple | pd.Series):
        return "list", tuple(map(meaning, value))
    if isinstance(value, pa.Array):
        return meaning(value.to_pylist())
    raise AssertionError(value)


# --- Arrow types ----------------------------------------------------------------------------------

UNITS = ("s", "ms", "us", "ns")
FLAT = [
    pa.null(),
    pa.bool_(),
    *(getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)),
    pa.float16(),
    pa.float32(),
    pa.float64(),
    pa.decimal32(5, 2),
    pa.decimal64(12, 3),
    pa.decimal128(25, 4),
    pa.decimal256(60, 5),
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.binary(4),
    pa.date32(),
    pa.date64(),
    pa.time32("s"),
    pa.time32("ms"),
    pa.time64("us"),
    pa.time64("ns"),
    *(pa.duration(unit) for unit in UNITS),
    *(pa.timestamp(unit) for unit in UNITS),
    *(pa.timestamp(unit, zone) for unit in UNITS for zone in ("UTC", "Europe/Berlin", "+02:00")),
    pa.month_day_nano_interval(),
    pa.uuid(),
    pa.json_(),
    pa.bool8(),
    pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.int64()),
    pa.dictionary(pa.int8(), pa.timestamp("ns")),
    pa.run_end_encoded(pa.int32(), pa.int64()),
]
NESTED = [
    pa.list_(pa.int64()),
    pa.large_list(pa.string()),
    pa.list_view(pa.int16()),
    pa.large_list_view(pa.string_view()),
    pa.list_(pa.float32(), 2),
    pa.struct({"a": pa.int8(), "b": pa.string_view()}),
    pa.map_(pa.string(), pa.int64()),
    pa.list_(pa.timestamp("ns")),
    pa.list_(pa.time64("ns")),
    pa.struct({"t": pa.time64("ns"), "d": pa.duration("ns")}),
    pa.map_(pa.string(), pa.time64("ns")),
    pa.map_(pa.int32(), pa.list_(pa.uint64())),
    pa.list_(pa.map_(pa.string(), pa.string())),
    pa.struct({"m": pa.map_(pa.string(), pa.struct({"x": pa.timestamp("ns", "UTC")}))}),
    pa.list_(pa.list_view(pa.time64("ns"))),
    pa.list_(pa.dictionary(pa.int8(), pa.string())),
    pa.list_(pa.null()),
    pa.struct({"n": pa.null()}),
    pa.list_(pa.decimal256(60, 5)),
    pa.list_(pa.time64("ns"), 2),
    pa.map_(pa.string_view(), pa.binary_view()),
]
TYPES = {str(kind): kind for kind in (*FLAT, *NESTED)}


def ticks(kind) -> st.SearchStrategy:
    """Return a strategy for the integers that times of a type are kept as."""
    per_second = 1000 ** UNITS.index(kind.unit) if hasattr(kind, "unit") else 1
    if pa.types.is_time(kind):
        return st.integers(0, 86_400 * per_second - 1)
    most = min(2**62, 200 * 365 * 86_400 * per_second)
    return st.integers(-most, most)


def _flat_cells(kind) -> st.SearchStrategy:
    types = pa.types
    if types.is_integer(kind):
        return st.integers(
            *(
                (0, 2**kind.bit_width - 1)
                if str(kind)[0] == "u"
                else (-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1)
            )
        )
    if types.is_floating(kind):
        return st.floats(width=kind.bit_width)
    if types.is_decimal(kind):
        most = 10**kind.precision - 1
        return st.integers(-most, most).map(lambda digits: Decimal(digits).scaleb(-kind.scale, DIGITS))
    if types.is_fixed_size_binary(kind):
        return st.binary(min_size=kind.byte_width, max_size=kind.byte_width)
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return st.binary(max_size=20)
    return (
        st.booleans() if types.is_boolean(kind) else st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    )


DIGITS = Context(prec=80)


def arrays(kind, size: int) -> st.SearchStrategy:  # noqa: C901, PLR0912 - a table of cases
    """Return a strategy for arrays of a type, with nulls."""
    types = pa.types
    if types.is_null(kind):
        return st.just(pa.nulls(size))
    if types.is_run_end_encoded(kind):
        import pyarrow.compute as pc

        return arrays(kind.value_type, size).map(pc.run_end_encode)
    if types.is_dictionary(kind):
        return arrays(kind.value_type, size).map(lambda array: array.dictionary_encode().cast(kind))
    if kind == pa.uuid():
        return arrays(pa.binary(16), size).map(lambda array: pa.ExtensionArray.from_storage(kind, array))
    if kind == pa.bool8():
        return arrays(pa.bool_(), size).map(
            lambda array: pa.ExtensionArray.from_storage(kind, array.cast(pa.int8()))
        )
    if kind == pa.json_():
        return cells(st.sampled_from(["{}", "[1]"]), size).map(
            lambda some: pa.ExtensionArray.from_storage(kind, pa.array(some, pa.string()))
        )
    if kind == pa.month_day_nano_interval():
        return cells(st.tuples(*[st.integers(-9, 9)] * 3), size).map(lambda some: pa.array(some, kind))
    if types.is_date32(kind) or types.is_date64(kind):
        return cells(st.dates(), size).map(lambda some: pa.array(some, kind))
    if types.is_temporal(kind):
        width = pa.int32() if types.is_time32(kind) else pa.int64()
        return cells(ticks(kind), size).map(lambda some: pa.array(some, width).cast(kind))
    if types.is_nested(kind):
        return _nested(kind, size)
    return cells(_flat_cells(kind), size).map(lambda some: pa.array(some, kind))


def cells(strategy: st.SearchStrategy, size: int) -> st.SearchStrategy:
    """Return a strategy for so many cells, some of them null."""
    return st.lists(st.none() | strategy, min_size=size, max_size=size)


def _nested(kind, size: int) -> st.SearchStrategy:
    types = pa.types
    mask = st.lists(st.booleans(), min_size=size, max_size=size).map(lambda some: pa.array(some, pa.bool_()))
    if types.is_struct(kind):
        parts = st.tuples(*(arrays(field.type, size) for field in kind))
        return st.builds(
            lambda made, gone: pa.StructArray.from_arrays(list(made), fields=list(kind), mask=gone), parts, mask
        )
    if types.is_fixed_size_list(kind):
        inner = arrays(kind.value_type, size * kind.list_size)
        return st.builds(
            lambda made, gone: pa.FixedSizeListArray.from_arrays(made, type=kind, mask=gone), inner, mask
        )
    offsets = [2 * at for at in range(size + 1)]
    if types.is_map(kind):
        keys = arrays(kind.key_type, 2 * size).map(
            lambda made: (
                made.fill_null("k")
                if types.is_string(made.type)
                else pa.array([str(at) if "string" in str(made.type) else at for at in range(2 * size)], made.type)
            )
        )
        return st.builds(
            lambda key, item, gone: pa.MapArray.from_arrays(
                pa.array(offsets, pa.int32()), key, item, kind, mask=gone
            ),
            keys,
            arrays(kind.item_type, 2 * size),
            mask,
        )
    inner = arrays(kind.value_type, 2 * size)
    is_large = types.is_large_list(kind) or types.is_large_list_view(kind)
    width = pa.int64() if is_large else pa.int32()
    if types.is_list_view(kind) or types.is_large_list_view(kind):
        make = pa.LargeListViewArray if is_large else pa.ListViewArray
        return st.builds(
            lambda made, gone: make.from_arrays(
                pa.array(offsets[:-1], width), pa.array([2] * size, width), made, type=kind, mask=gone
            ),
            inner,
            mask,
        )
    make = pa.LargeListArray if is_large else pa.ListArray
    return st.builds(
        lambda made, gone: make.from_arrays(pa.array(offsets, width), made, type=kind, mask=gone), inner, mask
    )


class Length(pa.ExtensionType):
    """A type of a user, with a parameter."""

    def __init__(self, unit="m", storage=None):
        self.unit = unit
        super().__init__(storage or pa.int64(), "batchflow.tests.length")

    def __arrow_ext_serialize__(self):
        return self.unit.encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage, serialized):
        return cls(serialized.decode(), storage)


def extension_arrays() -> dict[str, pa.Array]:
    """Return an array of three values, one of them null, of each extension type, by name."""
    stored = pa.ExtensionArray.from_storage
    numbers = pa.array([1, None, 3])
    lists = pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))
    return {
        "json": stored(pa.json_(), pa.array(["{}", None, "[1]"])),
        "bool8": stored(pa.bool8(), pa.array([1, None, 0], pa.int8())),
        "uuid": stored(pa.uuid(), pa.array([b"a" * 16, None, b"b" * 16], pa.binary(16))),
        "opaque": stored(pa.opaque(pa.int64(), "t", "v"), numbers),
        "tensor": stored(pa.fixed_shape_tensor(pa.float32(), [1, 2]), lists),
        "length": stored(Length(), numbers),
        "feet": stored(Length("ft"), numbers),
        "struct": stored(Length("ft", pa.struct({"x": pa.int64()})), pa.array([{"x": 1}, None, {"x": 3}])),
    }


def exact(column: pa.Array | pa.ChunkedArray) -> list:
    """Return the meaning of the values of a column, by Arrow's own conversion of its simplest parts."""
    if isinstance(column, pa.ChunkedArray):
        return [each for chunk in column.chunks for each in exact(chunk)]
    return [_exact(column[at]) for at in range(len(column))]


def _exact(scalar) -> object:
    kind, types = scalar.type, pa.types
    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.ExtensionScalar):
        return meaning(scalar.as_py()) if kind in (pa.uuid(), pa.bool8()) else _exact(scalar.value)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _exact(
            scalar.value
            if hasattr(scalar, "value") and isinstance(scalar.value, pa.Scalar)
            else pa.scalar(scalar.as_py(), kind.value_type)
        )
    if types.is_timestamp(kind) or types.is_time(kind) or types.is_duration(kind):
        name = (
            "span"
            if types.is_duration(kind)
            else "time"
            if types.is_time(kind)
            else "naive"
            if kind.tz is None
            else "instant"
        )
        return name, scalar.value * 1000 ** (3 - UNITS.index(kind.unit))
    if types.is_map(kind):
        return "map", tuple(
            (_exact(pair["key"]), _exact(pair["value"])) for pair in scalar.values
        ) if scalar.values is not None else ()
    if types.is_struct(kind):
        return "struct", tuple(
            sorted((name, held) for name in scalar if (held := _exact(scalar[name])) is not None)
        )
    if types.is_nested(kind):
        return "list", tuple(_exact(scalar.values[at]) for at in range(len(scalar.values)))
    return meaning(scalar.as_py())
