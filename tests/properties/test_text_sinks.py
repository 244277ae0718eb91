"""What goes into CSV and JSON Lines is what is read from them, or an error row."""

from __future__ import annotations

import json
import math
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import batchflow as bf
from batchflow.errors import OutputError
from batchflow.io.formats.json_lines import encode_rows

QUICK = settings(max_examples=60, deadline=None)
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(TEXT, JSON, max_size=4), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sinks")


def lines_of(path: Path) -> list:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def same(value, other) -> bool:
    """Whether values are equal, in types too: 1, 1.0 and True differ."""
    return json.dumps(value, sort_keys=False) == json.dumps(other, sort_keys=False)


@given(rows=ROWS, chunk=st.sampled_from(["1B", "30B", "1MB"]))
@QUICK
def test_json_lines_copied_by_any_cut_are_unchanged(folder, rows, chunk):
    source, copy = folder / "in.jsonl", folder / "copy.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = bf.map_records(
        lambda row: row, bf.read_json(source), into=copy, executor="serial", chunk=chunk, fresh=True
    )
    assert result.report.failed == 0
    assert same(lines_of(copy), rows)
    assert same(result.values, rows) or all(list(row) == ["value"] for row in rows)
    assert same(bf.map_records(lambda row: row, bf.read_json(copy), executor="serial").report.rows_in, len(rows))


def test_json_lines_absent_stays_absent_and_null_stays_null(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"x":{"a":1}}\n{"x":{"b":null}}\n{"y":3}\n{}\n{"y":"text"}\n')
    into = tmp_path / "b.jsonl"
    result = bf.map_records(lambda row: row, bf.read_json(tmp_path / "a.jsonl"), into=into, executor="serial")
    assert into.read_text() == (tmp_path / "a.jsonl").read_text()
    assert result.values == [{"x": {"a": 1}}, {"x": {"b": None}}, {"y": 3}, {}, {"y": "text"}]


def test_json_lines_keys_of_their_own_take_no_more_room(tmp_path):
    rows = [{"id": n, "words": {f"w{n}_{m}": m for m in range(20)}} for n in range(2000)]
    into = tmp_path / "b.jsonl"
    result = bf.map_records(lambda row: row, bf.records(rows), into=into, executor="serial", chunk=100)
    assert into.stat().st_size < len(json.dumps(rows))
    assert result.values == rows


EXACT = [
    (2**70, 2**70),
    (-(2**70), -(2**70)),
    (b"\xff\x00", "/wA="),
    (date(9999, 12, 31), "9999-12-31"),
    (datetime(2024, 1, 2, 3, 4, 5, 6), "2024-01-02T03:04:05.000006"),
    (datetime(2024, 1, 2, tzinfo=UTC), "2024-01-02T00:00:00Z"),
    (datetime(1800, 1, 1, tzinfo=timezone(timedelta(seconds=3208))), "1799-12-31T23:06:32Z"),
    (time(1, 2, 3), "01:02:03"),
    (timedelta(days=1, microseconds=1), "P1DT0.000001S"),
    (Decimal("1.10"), "1.10"),
    (uuid.UUID(int=5), str(uuid.UUID(int=5))),
    (np.int64(5), 5),
    (np.float32(0.5), 0.5),
    (np.float32(0.1), float(np.float32(0.1))),
    (np.bool_(True), True),
    (np.str_("x"), "x"),
    (np.array([1, 2]), [1, 2]),
    ((1, 2), [1, 2]),
    ("\u2028", "\u2028"),
    (pd.Timestamp("2024-01-01 00:00:00.123456789"), "2024-01-01T00:00:00.123456789"),
    (pd.NaT, None),
    (pd.NA, None),
    (np.datetime64("2024-01-01T00:00:00.123456789"), "2024-01-01T00:00:00.123456789"),
    (np.timedelta64(1, "ns"), "PT0.000000001S"),
    ({"a": {"b": [None]}}, {"a": {"b": [None]}}),
]


@pytest.mark.parametrize(("value", "shown"), EXACT, ids=lambda case: repr(case)[:30])
def test_json_lines_value_is_shown_with_all_digits(tmp_path, value, shown):
    into = tmp_path / "o.jsonl"
    result = bf.map_records(lambda n: {"n": n, "x": value}, bf.records([0, 1]), into=into, executor="serial")
    assert result.report.failed == 0
    assert same(lines_of(into), [{"n": n, "x": shown} for n in (0, 1)])


def test_json_lines_columns_have_the_types_that_arrow_infers():
    rows = [{"t": datetime(2024, 1, 2), "d": np.datetime64("2024-01-02"), "l": [np.int8(1)], "s": "x"}] * 2
    types = {"t": pa.timestamp("us"), "d": pa.date32(), "l": pa.list_(pa.int8()), "s": "str"}
    assert encode_rows(rows)[1] == types
    assert encode_rows([{"x": np.int8(1)}, {"x": np.str_("y")}])[1] == {"x": "any"}


def test_json_lines_error_while_types_are_inferred_is_no_type(monkeypatch):
    def broken(rows):
        raise NameError("pa")

    monkeypatch.setattr("batchflow.io.arrow.convert.rows_to_table", broken)
    with pytest.raises(NameError):
        encode_rows([{"t": datetime(2024, 1, 2)}])


LOOP: list = []
LOOP.append(LOOP)
REFUSED = [
    math.nan,
    math.inf,
    -math.inf,
    {"deep": [math.nan]},
    np.float64("nan"),
    np.array([1.0, np.inf]),
    {1: "a"},
    {"x": {None: 1}},
    {1, 2},
    frozenset("ab"),
    object(),
    "\ud800",
    {"\udfff": 1},
    1j,
    LOOP,
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda case: ascii(type(case))[:30])
def test_json_lines_value_without_a_form_is_an_error_row(tmp_path, value):
    into = tmp_path / "o.jsonl"
    job = bf.map_records(
        lambda n: {"x": value if n == 7 else n}, bf.records(range(20)), into=into, executor="serial"
    )
    assert lines_of(into) == [{"x": n} for n in range(20) if n != 7]
    assert [(row["record"], row["phase"]) for row in job.errors.to_pylist()] == [(8, "convert")]


FAR = pa.array([0, 1, 2**62], pa.timestamp("us"))


@pytest.mark.parametrize("into", ["o.csv", "o.jsonl"])
@pytest.mark.parametrize(
    "column",
    [
        FAR,
        pa.array([0, 2**60, 5], pa.timestamp("s")),
        pa.array([0, 5, 2**31 - 1], pa.int32()).cast(pa.date32()),
        pa.array([0, -(2**60), 5], pa.timestamp("ms", "UTC")),
        pa.array([0, 86_400_000 * 2**34, 5], pa.int64()).view(pa.date64()),
    ],
    ids=str,
)
def test_text_sink_time_out_of_range_is_an_error_row(tmp_path, into, column):
    table = pa.table({"n": range(3), "t": column})
    result = bf.map_batches(lambda t: t, bf.records(table), into=tmp_path / into, executor="serial")
    assert (result.report.rows_out, result.report.failed) == (2, 1)
    good = [at for at in range(3) if at + 1 != result.errors["record"][0].as_py()]
    assert result.table["n"].to_pylist() == good
    assert "out of range" not in (tmp_path / into).read_text()


@pytest.mark.parametrize("value", [b"\xff", b"ok\x80"])
def test_csv_bytes_that_are_no_text_are_an_error_row(tmp_path, value):
    fn = lambda i: {"i": i, "b": value if i == 7 else b"ok"}
    for executor in ("serial", "processes"):
        result = bf.map_records(
            fn, bf.records(list(range(100))), into=tmp_path / "o.csv", executor=executor, fresh=True
        )
        assert result.errors["record"].to_pylist() == [8]
        assert result.table.to_pylist() == [{"i": i, "b": b"ok"} for i in range(100) if i != 7]


@pytest.mark.parametrize(
    "time",
    [
        datetime(1890, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2024, 1, 1, 0, 0, 0, 5, timezone(timedelta(seconds=3601))),
        pd.Timestamp("2024-01-01", tz=timezone(timedelta(seconds=-1))),
    ],
)
def test_json_lines_time_whose_offset_has_seconds_is_the_same_instant(tmp_path, time):
    result = bf.map_records(
        lambda n: {"t": time, "l": [time]}, bf.records([1, 2]), into=tmp_path / "out.jsonl", executor="serial"
    )
    assert (
        result.table["t"].to_pylist() == result.table["l"].combine_chunks().flatten().to_pylist() == [time, time]
    )
    assert [row["t"] for row in result.values] == [time, time]
    assert lines_of(tmp_path / "out.jsonl")[0]["t"].endswith(("Z", "+00:00"))


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "csv", "jsonl"])
def test_damaged_output_read_is_an_error_that_names_it(tmp_path, suffix):
    path = tmp_path / f"out.{suffix}"
    result = bf.map_records(lambda n: {"n": n, "m": n}, bf.records([1, 2]), into=path, executor="serial")
    path.write_text('n,m\n"x' if suffix == "csv" else '{"n": 1, "m"\n')
    for read in (lambda: result.table, lambda: result.values):
        with pytest.raises(OutputError, match=f"cannot read {path}: .*batchflow verify {path}"):
            read()


def nanoseconds(kind=None):
    return st.integers(0, 86_399_999_999_999) if kind else st.integers(-(2**62), 2**62)


CELLS = {
    "text": (pa.string(), TEXT),
    "large text": (pa.large_string(), TEXT),
    "int": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "uint": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "int8": (pa.int8(), st.integers(-128, 127)),
    "float": (pa.float64(), st.floats(allow_nan=False)),
    "float32": (pa.float32(), st.floats(width=32, allow_nan=False)),
    "half": (pa.float16(), st.floats(width=16, allow_nan=False, allow_infinity=False).map(np.float16)),
    "bool": (pa.bool_(), st.booleans()),
    "bytes": (pa.binary(), st.binary(max_size=4)),
    "decimal": (pa.decimal128(20, 3), st.decimals(-(10**9), 10**9, places=3)),
    "decimal256": (pa.decimal256(50, 3), st.decimals(-(10**9), 10**9, places=3)),
    "date": (pa.date32(), st.dates()),
    "ns": (pa.timestamp("ns"), nanoseconds()),
    "us": (pa.timestamp("us"), nanoseconds()),
    "zone": (pa.timestamp("ns", "Europe/Berlin"), st.integers(0, 2**62)),
    "time": (pa.time64("ns"), nanoseconds("time")),
    "dictionary": (pa.dictionary(pa.int32(), pa.string()), TEXT),
    "duration": (pa.duration("ns"), nanoseconds()),
    "list": (pa.list_(pa.int64()), st.lists(st.integers(-9, 9), max_size=3)),
    "times": (pa.list_(pa.timestamp("ns")), st.lists(nanoseconds(), max_size=2)),
    "struct": (
        pa.struct([("a", pa.int64()), ("t", pa.timestamp("us"))]),
        st.fixed_dictionaries({"a": st.integers(-9, 9), "t": st.none()}),
    ),
}
SHOWN_IN_JSON = {"bytes", "time", "duration", "times"}
"""Kinds that come back from JSON Lines as the text that is there."""


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("kind", CELLS)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_table_in_text_is_read_back_equal_or_an_error_row(folder, kind, suffix, data):
    arrow, cells = CELLS[kind]
    values = data.draw(st.lists(st.none() | cells, min_size=1, max_size=6))
    table = pa.table({"n": range(len(values)), "x": pa.array(values, arrow)})
    result = bf.map_batches(
        lambda t: t, bf.records(table), into=folder / f"m.{suffix}", executor="serial", fresh=True
    )
    bad = {number - 1 for number in result.errors["record"].to_pylist()}
    good = [at for at in range(len(values)) if at not in bad]
    if suffix == "csv" and pa.types.is_nested(arrow):
        assert good == []
        return
    if kind in ("text", "int", "uint", "bool", "decimal", "list"):
        assert not bad
    if kind in SHOWN_IN_JSON and suffix == "jsonl":
        assert result.table["n"].to_pylist() == good
        return
    if good:
        assert result.table.equals(table.take(good)), (result.table["x"], table["x"])
