"""Python values as Arrow, and tables of different schemas as one."""

from __future__ import annotations

import uuid
from collections import OrderedDict, defaultdict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from batchflow.errors import SchemaError
from batchflow.io.arrow.arrays import kinds_of
from batchflow.io.arrow.convert import (
    NotTabularError,
    as_table,
    rows_to_table,
    table_to_rows,
    table_to_values,
    values_to_table,
)
from batchflow.io.arrow.precision import annotated_schema, unmarked
from batchflow.io.arrow.schema import concat, conform, unify
from batchflow.worker.sinks import MemorySink, TableSink

NOON = datetime(2024, 2, 29, 12)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None, -5], pa.int64()),
        ([None, 1], pa.int64()),
        ([None, None], pa.null()),
        ([1, 2.5], pa.float64()),
        ([0.5, None], pa.float64()),
        ([True, None], pa.bool_()),
        (["a", "é"], pa.string()),
        ([b"a", b"\xff"], pa.binary()),
        ([date(2024, 1, 1)], pa.date32()),
        ([NOON, None], pa.timestamp("us")),
        ([NOON.replace(tzinfo=UTC)], pa.timestamp("us", "UTC")),
        ([time(1)], pa.time64("us")),
        ([timedelta(1)], pa.duration("us")),
        ([Decimal("1.50")], pa.decimal128(3, 2)),
        ([uuid.UUID(int=5)], pa.uuid()),
        ([[1], [], None], pa.list_(pa.int64())),
        ([["a"], [None]], pa.list_(pa.string())),
        ([[{"a": 1}]], pa.list_(pa.struct({"a": pa.int64()}))),
    ],
)
def test_scalars_and_lists_are_rows_of_one_column(values, kind):
    table = values_to_table(values)
    assert table.schema == pa.schema([("value", kind)])
    assert table_to_values(table) == values


def test_numpy_scalars():
    assert values_to_table([np.int32(1), np.int32(2)]).schema.field("value").type == pa.int32()
    assert values_to_table([np.str_("a")]).to_pylist() == [{"value": "a"}]
    assert values_to_table([np.arange(2), np.arange(3)]).to_pylist() == [{"value": [0, 1]}, {"value": [0, 1, 2]}]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([{"a": 1, "b": "x"}, {"a": 2, "b": None}], [{"a": 1, "b": "x"}, {"a": 2, "b": None}]),
        ([{"b": 1, "a": 2}, {"a": 3, "b": 4}], [{"b": 1, "a": 2}, {"b": 4, "a": 3}]),
        ([{"a": 1}, {"b": 2}], [{"a": 1, "b": None}, {"a": None, "b": 2}]),
        ([{"a": 1}, {}], [{"a": 1}, {"a": None}]),
        ([{}, {}], [{}, {}]),
        ([{"a": None}, {"a": [1]}], [{"a": None}, {"a": [1]}]),
        ([{"a": {"b": 1}}, {"a": {"c": 2}}], [{"a": {"b": 1, "c": None}}, {"a": {"b": None, "c": 2}}]),
        ([OrderedDict(a=1), defaultdict(int, a=2), MappingProxyType({"a": 3})], [{"a": 1}, {"a": 2}, {"a": 3}]),
        ([{"a": 1}, 2], [{"a": 1, "value": None}, {"a": None, "value": 2}]),
        ([], []),
    ],
)
def test_mappings_are_rows(values, expected):
    table = values_to_table(values)
    assert table_to_rows(table) == table.to_pylist() == expected
    assert table.column_names == list(expected[0] if expected else [])


@pytest.mark.parametrize("value", [(1, 2), {1, 2}, object(), 1j, Ellipsis, int, range(3)])
def test_other_objects_are_no_rows(value):
    with pytest.raises(NotTabularError, match=f"returned an? {type(value).__qualname__}, which is neither"):
        values_to_table([{"a": 1}, value])


def test_names_of_columns_are_text():
    with pytest.raises(NotTabularError, match="a row has the key 1: names of columns are text"):
        values_to_table([{1: 2}])


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([1, "a"], "int64 and string in one column"),
        (["a", 1], "string and int64 in one column"),
        (["a", b"b"], "string and binary in one column"),
        ([b"a", None, "b"], "binary and string in one column"),
        ([True, 1], "bool and int64 in one column"),
        ([date(2024, 1, 1), NOON], r"date32\[day\] and timestamp\[us\] in one column"),
        ([NOON, date(2024, 1, 1)], "date"),
        ([NOON, None, NOON.replace(tzinfo=UTC)], "timestamp.* and timestamp.* in one column"),
        ([NOON.replace(tzinfo=timezone(timedelta(hours=1))), NOON], "timestamp.* and timestamp.* in one column"),
        ([2**64], "too large"),
        ([2**60 + 1, 0.5], r"int64 with whole numbers beyond 2\*\*53 and double in one column"),
    ],
)
def test_cells_that_arrow_would_change_or_refuse(cells, message):
    with pytest.raises(SchemaError, match=f"column 'c': .*{message}"):
        rows_to_table([{"c": cell} for cell in cells])
    with pytest.raises(SchemaError, match=f"column 'value': .*{message}"):
        values_to_table(cells)


def test_dates_of_two_zones_are_the_same_moments():
    moments = [NOON.replace(tzinfo=UTC), NOON.replace(tzinfo=timezone(timedelta(hours=2)))]
    assert table_to_values(values_to_table(moments)) == moments


def test_frames_become_tables():
    rows = [{"a": 1, "s": "x"}, {"a": 2, "s": None}]
    table = pa.Table.from_pylist(rows)
    for value in (
        table,
        table.to_batches()[0],
        {"a": [1, 2], "s": ["x", None]},
        {"a": np.array([1, 2]), "s": pa.array(["x", None])},
        pd.DataFrame(rows, index=[7, 8]),
        pl.DataFrame(rows),
        MappingProxyType({"a": (1, 2), "s": ["x", None]}),
        table.to_reader(),
    ):
        assert as_table(value).to_pylist() == rows
    assert as_table(table) is table
    assert as_table(pd.DataFrame(rows)).schema.metadata is None


def test_named_index_of_a_frame_becomes_columns():
    frame = pd.DataFrame({"k": ["a", "a", "b"], "g": [1, 1, 2], "v": [1, 2, 3]})
    assert as_table(frame.groupby(["k", "g"]).sum()).to_pydict() == {"k": ["a", "b"], "g": [1, 2], "v": [3, 3]}
    assert as_table(frame.set_index("k", drop=False)).to_pydict() == frame.to_dict("list")
    assert as_table(frame[frame["v"] > 1]).to_pydict() == {"k": ["a", "b"], "g": [1, 2], "v": [2, 3]}


def test_frames_lose_their_views_which_no_slice_can_leave_behind():
    frame = pl.DataFrame({"s": ["x"], "b": [b"y"], "l": [["z"]], "t": [{"u": "v"}], "n": [1]})
    table = as_table(frame)
    assert "view" not in str(table.schema)
    assert table.to_pylist() == frame.to_dicts()
    views = pa.table({"l": pa.array([["a"], None], pa.list_(pa.string_view()))})
    assert as_table(views).schema.field("l").type == pa.list_(pa.large_string())
    assert as_table(views).to_pylist() == views.to_pylist()


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        [1],
        "text",
        {"a": 1},
        {"a": [1], "b": [1, 2]},
        pd.Series([1]),
        pl.Series([1]),
        pa.array([1]),
        pl.LazyFrame({"a": [1]}),
        object(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_table(value):
    with pytest.raises(NotTabularError, match=f"returned an? {type(value).__qualname__} that is no table"):
        as_table(value)


STRING, BINARY = pa.string(), pa.binary()


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (pa.int64(), pa.float64(), pa.float64()),
        (pa.null(), STRING, STRING),
        (pa.int8(), pa.int64(), pa.int64()),
        (STRING, pa.large_string(), pa.large_string()),
        (pa.list_(pa.null()), pa.list_(STRING), pa.list_(STRING)),
        (pa.struct({"a": STRING}), pa.struct({"b": BINARY}), pa.struct({"a": STRING, "b": BINARY})),
        (pa.list_(pa.int64()), pa.list_(pa.float64()), pa.list_(pa.float64())),
        (pa.int64(), STRING, None),
        (pa.bool_(), pa.int64(), None),
        (pa.date32(), pa.timestamp("us"), None),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), None),
        (pa.int64(), pa.list_(pa.int64()), None),
        (STRING, BINARY, None),
        (pa.large_string(), BINARY, None),
        (STRING, pa.large_binary(), None),
        (pa.list_(STRING), pa.list_(BINARY), None),
        (pa.struct({"a": STRING}), pa.struct({"a": BINARY}), None),
        (pa.large_list(pa.struct({"a": STRING})), pa.large_list(pa.struct({"a": BINARY})), None),
    ],
)
def test_unify(one, other, both):
    for first, second in ((one, other), (other, one)):
        left, right = (pa.schema([("c", kind)]) for kind in (first, second))
        if both is not None:
            assert {field.name: field.type for field in unify(left, right)} == {"c": both} or "struct" in str(both)
            continue
        with pytest.raises(SchemaError) as caught:
            unify(left, right, "chunk 7")
        assert str(caught.value) == (
            f"column 'c' is {second} in chunk 7, but {first} before: give it one type in the function"
        )


def test_unify_keeps_columns_in_order_of_appearance():
    first = pa.schema([("a", pa.int64()), ("b", STRING)], metadata={"k": "v"})
    second = pa.schema([("c", STRING), ("a", pa.float64())])
    both = pa.schema([("a", pa.float64()), ("b", STRING), ("c", STRING)])
    assert unify(unify(None, first), second).equals(both, check_metadata=True)
    assert unify(None, first).metadata is None


def test_a_column_twice_is_refused():
    double = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    assert concat([double, double]).num_rows == 2
    with pytest.raises(SchemaError, match="two columns are named 'a' in row 2"):
        concat([pa.table({"a": [1]}), double])


def test_concat():
    tables = [
        pa.table({"n": pa.nulls(1), "s": ["x"]}),
        pa.table({}),
        pa.table({"n": [1]}),
        pa.table({"t": [[1]], "n": [2.5]}),
        pa.table({"n": pa.array([], pa.int64())}),
    ]
    assert concat(tables).to_pylist() == [
        {"n": None, "s": "x", "t": None},
        {"n": 1.0, "s": None, "t": None},
        {"n": 2.5, "s": None, "t": [1]},
    ]
    assert concat([]).num_rows == concat([pa.table({})]).num_rows == 0


def test_concat_of_structs_with_different_keys():
    tables = [pa.table({"c": [[{"a": 1}]]}), pa.table({"c": [[{"b": "x"}], None]})]
    assert concat(tables).to_pylist() == [
        {"c": [{"a": 1, "b": None}]},
        {"c": [{"a": None, "b": "x"}]},
        {"c": None},
    ]


def test_rows_without_columns_still_count():
    bare = rows_to_table([{}, {}])
    assert (bare.num_rows, bare.num_columns) == (2, 0)
    assert concat([bare, bare]).num_rows == 4
    assert concat([bare, pa.table({"a": [1]}), bare]).to_pylist() == [
        {"a": None},
        {"a": None},
        {"a": 1},
        {"a": None},
        {"a": None},
    ]


def test_concat_refuses_what_would_change_a_value():
    with pytest.raises(
        SchemaError, match=r"column 'c' is double in row 2, but int64 with whole numbers beyond 2\*\*53 before"
    ):
        concat([pa.table({"c": [2**60 + 1]}), pa.table({"c": [0.5]})])
    with pytest.raises(SchemaError, match="column 'c' is string in row 2, but int64 before"):
        concat([pa.table({"c": [1]}), pa.table({"c": ["x"]})])


def test_conform_adds_columns_orders_them_and_casts():
    schema = pa.schema([("a", pa.float64()), ("b", STRING)])
    assert conform(pa.table({"a": [1]}), schema).equals(pa.table({"a": [1.0], "b": pa.nulls(1, STRING)}))
    table = pa.table({"b": ["x"], "a": [0.5]})
    assert conform(table, schema).column_names == ["a", "b"]
    assert conform(pa.table({"a": [0.5], "b": ["x"]}), schema).schema == schema


def test_rows_of_a_table_are_those_of_arrow():
    table = pa.table(
        {
            "a": [1, None],
            "s": ["x", "y"],
            "l": [[1], []],
            "d": [NOON, None],
            "m": pa.array([[("k", 1)], None], pa.map_(STRING, pa.int64())),
            "c": pa.array(["u", "u"]).dictionary_encode(),
        }
    )
    for part in (table, table.slice(1), table.slice(0, 0), table.select([]), table.to_batches()[0]):
        assert table_to_rows(part) == part.to_pylist()


WIDE = "with whole numbers beyond 2**53"


@pytest.mark.parametrize(
    ("large", "other", "told"),
    [
        (pa.array([2**53 + 1]), pa.array([0.5]), f"int64 {WIDE}"),
        (pa.array([-(2**53) - 1]), pa.array([0.5]), f"int64 {WIDE}"),
        (pa.array([2**64 - 1], pa.uint64()), pa.array([-1]), "uint64 with whole numbers beyond 2**63"),
        (pa.array([2**64 - 1], pa.uint64()), pa.array([0.5]), "uint64 with whole numbers beyond 2**63"),
        (pa.array([[None, 2**60]]), pa.array([[0.5]]), f"list<item: int64> {WIDE}"),
        (
            pa.array([{"a": [{"b": 2**60}]}]),
            pa.array([{"a": [{"b": 0.5}]}]),
            f"struct<a: list<item: struct<b: int64>>> {WIDE}",
        ),
        (
            pa.array([[("k", 2**60)]], pa.map_(STRING, pa.int64())),
            pa.array([[("k", 0.5)]], pa.map_(STRING, pa.float64())),
            f"map<string, int64> {WIDE}",
        ),
        (
            pa.array([[2**60, 1]], pa.list_(pa.int64(), 2)),
            pa.array([[0.5]]),
            f"fixed_size_list<item: int64>[2] {WIDE}",
        ),
        (
            pa.array([datetime(1, 1, 1)]),
            pa.array([NOON], pa.timestamp("ns")),
            "timestamp[us] with times beyond what nanoseconds hold",
        ),
        (
            pa.array([datetime(9999, 1, 1)], pa.timestamp("s")),
            pa.array([NOON], pa.timestamp("ns")),
            "timestamp[s] with times beyond what nanoseconds hold",
        ),
        (
            pa.array([2**60], pa.int64()).cast(pa.duration("s")),
            pa.array([1]).cast(pa.duration("us")),
            "duration[s] with times beyond what milliseconds hold",
        ),
    ],
)
def test_a_mark_tells_that_values_do_not_go_into_a_wider_type(large, other, told):
    one, two = pa.table({"c": large}), pa.table({"c": other})
    with pytest.raises(SchemaError) as error:
        unify(annotated_schema(one), annotated_schema(two), "this record")
    assert (
        str(error.value)
        == f"column 'c' is {other.type} in this record, but {told} before: give it one type in the function"
    )
    with pytest.raises(SchemaError, match=r"^column 'c' is .* with (whole|times)"):
        unify(annotated_schema(two), annotated_schema(one))
    both = unify(unify(None, annotated_schema(one)), annotated_schema(pa.table({"c": pa.nulls(1), "d": [1]})))
    with pytest.raises(SchemaError):  # the mark stays
        unify(both, annotated_schema(two))
    assert all(field.metadata is None for field in unmarked(both))


def test_values_that_a_wider_type_holds_have_no_mark():
    for cells in (
        [2**53, 0, None],
        [],
        [None],
        [[2**53]],
        ["x"],
        [datetime(1700, 1, 1)],
        [{"a": 1}],
        [Decimal(1)],
    ):
        assert all(field.metadata is None for field in annotated_schema(pa.table({"c": cells})))
    large = pa.table({"c": [2**60, 1], "l": [[2**60], [1]], "s": [{"a": 2**60}, {"a": 1}]})
    assert all(field.metadata for field in annotated_schema(large))
    assert all(
        field.metadata is None for field in annotated_schema(large.slice(1))
    )  # nor do those beside a slice count
    assert (
        unify(
            annotated_schema(pa.table({"c": [2**60]})), annotated_schema(pa.table({"c": pa.array([1], pa.int8())}))
        )
        .field(0)
        .type
        == pa.int64()
    )


def test_whole_numbers_and_decimals_get_the_digits_of_both():
    for kind in (pa.int8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()):
        for digits, scale in ((3, 2), (20, 2), (38, 0), (38, 30), (70, 40)):
            decimal = (pa.decimal128 if digits <= 38 else pa.decimal256)(digits, scale)
            whole = pa.table({"c": pa.array([7], kind), "l": pa.array([[7]], pa.list_(kind))})
            other = pa.table({"c": pa.nulls(1, decimal), "l": pa.nulls(1, pa.list_(decimal))})
            assert concat([whole, other])["c"].to_pylist() == [Decimal(7), None]
            assert concat([other, whole])["l"].to_pylist() == [None, [Decimal(7)]]
    with pytest.raises(SchemaError, match="column 'c' is int64, but decimal256"):
        unify(pa.schema([("c", pa.decimal256(76, 60))]), pa.schema([("c", pa.int64())]))


@pytest.mark.parametrize(
    ("values", "kinds"),
    [
        ([], set()),
        ([1, 2], {int}),
        ([1, True], {int, bool}),
        ([None, 1, 2.0], {type(None), int, float}),
        ((1,), {int}),
    ],
)
def test_kinds_are_the_types_of_all_values(values, kinds):
    assert kinds_of(values) == set(map(type, values)) == kinds


def test_kinds_of_an_array_are_those_of_its_elements():
    assert kinds_of(np.arange(3)) == {np.int64}
    assert kinds_of(np.arange(0)) == set()


@pytest.mark.parametrize("outlet", [TableSink])
@pytest.mark.parametrize("wide_at", [0, 1, 2])
def test_a_table_of_the_same_types_is_looked_at_once_another_type_comes(outlet, wide_at):
    """Numbers too large for a float stand in one of three tables: whichever it is, floats do not go with them."""
    out = outlet()
    for at in range(3):
        out.add(pa.table({"x": [2**53 + 1 if at == wide_at else at]}))
    assert out.schema == annotated_schema(pa.table({"x": [2**53 + 1]}))
    assert out.schema.field("x").metadata
    with pytest.raises(SchemaError, match=r"double.*int64 with whole numbers beyond 2\*\*53"):
        out.fit_in(pa.table({"x": [0.5]}))
    out.fit_in(pa.table({"x": [7]}))
    assert out.schema.field("x").metadata


@pytest.mark.parametrize("outlet", [MemorySink, TableSink])
def test_what_is_dropped_is_held_no_more(outlet):
    out = outlet()
    before = pa.total_allocated_bytes()
    for _ in range(3):
        out.add(pa.table({"x": pa.array(range(100_000))}))
    assert pa.total_allocated_bytes() - before >= 2_400_000
    out.drop()
    assert pa.total_allocated_bytes() == before


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(0), "Z"), timezone(timedelta(0))])
def test_zones_that_are_equal_have_one_name(zone):
    assert values_to_table([NOON.replace(tzinfo=zone)]).schema.field("value").type == pa.timestamp("us", "UTC")


def test_row_that_a_table_cannot_hold_is_named_in_any_cut():
    values = [{"a": 1}] * 5 + [{"a": "x"}] * 3
    for cut in (1, 2, 5, 8):
        memory = MemorySink()
        for first in range(0, len(values), cut):
            memory.take(values[first : first + cut])
        with pytest.raises(
            SchemaError, match=r"^row 6: column 'a': int64 and string in one column: give it one type"
        ):
            memory.close().table()


HIDDEN = pa.array([False, True])


@pytest.mark.parametrize(
    ("column", "other"),
    [
        (pa.ListArray.from_arrays([0, 2, 3], pa.array([0, 2, 2**53 + 1]), mask=HIDDEN), [[0.5]]),
        (
            pa.FixedSizeListArray.from_arrays(pa.array([1, 2**53 + 1]), type=pa.list_(pa.int64(), 1), mask=HIDDEN),
            [[0.5]],
        ),
        (pa.StructArray.from_arrays([pa.array([1, 2**53 + 1])], ["a"], mask=HIDDEN), [{"a": 0.5}]),
    ],
)
def test_values_under_a_null_do_not_count_for_the_type(column, other):
    both = concat([pa.table({"c": column}), pa.table({"c": other})])
    assert both["c"].to_pylist() == [*column.to_pylist(), *other]
