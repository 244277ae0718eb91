"""Columns whose types drift: each record is a row or an error, wherever the input is cut."""

from __future__ import annotations

import tempfile
from datetime import datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seen import seen

import batchflow as bf
from batchflow.events import ChunkSettled

STEADY = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
HUGE = [2**53, 2**53 + 1, -(2**53) - 1, 2**60, 2**63 - 1, -(2**63), 2**63, 2**70]
CELLS = st.lists(
    st.one_of(
        st.integers(-9, 9),
        st.sampled_from(HUGE),
        st.sampled_from([0.5, -2.25, 1e300]),
        st.none(),
        st.sampled_from(["x", "é"]),
    ),
    max_size=12,
)
SHAPES = {
    "flat": lambda cell: {"c": cell},
    "list": lambda cell: {"c": [cell]},
    "struct": lambda cell: {"c": {"in": cell}},
    "list of structs": lambda cell: {"c": [{"in": [cell]}]},
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    from batchflow.io.sources import in_memory as records

    monkeypatch.setattr(records, "_BLOCK_ROWS", 3)


def outcome(cells, shape, chunk, into):
    with tempfile.TemporaryDirectory() as folder:
        fn, source = (lambda at: SHAPES[shape](cells[at])), bf.records(range(len(cells)))
        options = {"chunk": chunk, "executor": "serial"}
        if into == "combine":
            result = bf.map_records(fn, source, combine=lambda table: table, **options)
        else:
            result = bf.map_records(fn, source, into=f"{folder}/{into}", **options)
        if into == "out/":
            for part in result.path.glob("*.parquet"):
                schema = pq.read_schema(part)
                assert all(field.metadata is None for field in schema)
        failed = [number - 1 for number in result.errors["record"].to_pylist()]
        assert result.report.rows_in == len(cells) == result.report.rows_out + len(failed)
        assert set(result.errors["phase"].to_pylist()) <= {"convert"}
        return result.values, failed, result.errors["message"].to_pylist()


@pytest.mark.parametrize("shape", SHAPES)
@given(cells=CELLS, chunk=st.integers(1, 5))
@settings(STEADY, max_examples=40)
def test_what_is_combined_is_what_would_be_written(shape, cells, chunk):
    """Also where chunks do not go together: the job goes on, and the same records fail."""
    assert outcome(cells, shape, chunk, "combine") == outcome(cells, shape, chunk, "out/")


@given(cells=CELLS, chunk=st.integers(1, 5))
@settings(STEADY, max_examples=60)
def test_a_stream_in_order_has_the_rows_that_would_be_written(cells, chunk):
    fn, source = (lambda at: {"c": cells[at]}), bf.records(range(len(cells)))
    options = {"per": "record", "chunk": chunk, "executor": "serial"}
    rows, failed, messages = outcome(cells, "flat", chunk, "out/")
    heard = []
    job = bf.Job(fn, source, listeners=[heard.append], **options)
    assert [row for table in job.stream() for row in table.to_pylist()] == rows
    settled = [event for event in heard if isinstance(event, ChunkSettled)]
    assert [(bad.record - 1, bad.message) for one in settled for bad in one.failures] == [
        *zip(failed, messages, strict=True)
    ]
    anyhow = bf.stream_batches(fn, source, ordered=False, max_errors=None, **options)
    assert sum(table.num_rows for table in anyhow) >= len(rows)


def test_tables_that_do_not_go_with_those_before_are_an_error_of_their_chunk():
    """In memory as on disk, whether they are combined, or what combine= makes of them does not go together."""

    def fn(table):
        return pa.table({"c": ["x" if at == 2 else at for at in table["value"].to_pylist()]})

    def odd(table):
        return pa.table({"n": ["many" if 2 in table["value"].to_pylist() else table.num_rows]})

    source, options = bf.records(range(5)), {"chunk": 1, "executor": "serial"}
    result = bf.map_batches(fn, source, combine=lambda table: table, **options)
    assert (seen(result).table["c"].to_pylist(), result.errors["record"].to_pylist()) == ([0, 1, 3, 4], [None])
    why = "column 'c' is string in records[2:3], but int64 before: give it one type in the function"
    told = [{"start": 2, "stop": 3, "phase": "convert", "message": why}]
    assert result.errors.select(["start", "stop", "phase", "message"]).to_pylist() == told
    rows = [
        row["c"]
        for table in bf.stream_batches(fn, source, max_errors=None, **options)
        for row in table.to_pylist()
    ]
    assert rows == [0, 1, 3, 4]
    counted = bf.map_records(
        lambda at: at,
        source,
        combine=lambda table: odd(table) if "value" in table.column_names else table,
        **options,
    )
    assert (seen(counted).table["n"].to_pylist(), counted.errors["start"].to_pylist()) == ([1, 1, 1, 1], [2])


@pytest.mark.parametrize("values", [[1, object(), 3], [object()]], ids=["among others", "alone"])
def test_what_no_table_holds_is_an_error_of_its_record_in_a_stream(values):
    options = {"per": "record", "chunk": 2, "executor": "serial", "max_errors": None}
    rows = [
        row
        for table in bf.stream_batches(lambda at: values[at], bf.records(range(len(values))), **options)
        for row in table.to_pylist()
    ]
    assert rows == [{"value": value} for value in values if isinstance(value, int)]


@pytest.mark.parametrize("shape", SHAPES)
@given(cells=CELLS, chunk=st.integers(1, 5))
@settings(STEADY, max_examples=40)
def test_any_cut_of_a_column_of_mixed_numbers_gives_the_same_rows_and_errors(shape, cells, chunk):
    whole = outcome(cells, shape, len(cells) + 1, "out/")
    assert outcome(cells, shape, chunk, "out/")[:2] == whole[:2]
    rows, failed, _ = whole
    kept = [SHAPES[shape](cell) for at, cell in enumerate(cells) if at not in failed]
    assert rows == kept


@given(
    cells=CELLS,
    chunk=st.integers(1, 5),
    name=st.sampled_from(["out.parquet", "out.csv", "out.jsonl", "out.arrow"]),
)
@settings(STEADY, max_examples=40)
def test_the_same_rows_fail_in_every_format(cells, chunk, name):
    _, failed, _ = outcome(cells, "flat", chunk, name)
    # Lines do not depend on each other, so no record of JSON Lines fails for those before it.
    assert failed == ([] if name == "out.jsonl" else outcome(cells, "flat", len(cells) + 1, "out/")[1])


YEARS = [datetime(1, 1, 1), datetime(1600, 1, 1), datetime(2020, 1, 1), datetime(9999, 1, 1)]


@given(tables=st.lists(st.tuples(st.sampled_from(["us", "ns"]), st.sampled_from(YEARS)), min_size=1, max_size=5))
@settings(STEADY, max_examples=30)
def test_times_that_a_finer_unit_does_not_hold(tables):
    """A whole table that does not fit is one error; the job goes on."""

    def fn(table):
        unit, when = tables[table["value"][0].as_py()]
        fine = unit if 1700 < when.year < 2200 else "us"
        return pa.table({"c": pa.array([when], pa.timestamp(fine))})

    with tempfile.TemporaryDirectory() as folder:
        result = bf.map_batches(
            fn, bf.records(range(len(tables))), into=f"{folder}/out/", chunk=1, executor="serial"
        )
        rows, failed = result.report.rows_out, result.errors.num_rows
        assert rows + failed == len(tables)
        kept = [value.replace(tzinfo=None) for value in result.table["c"].to_pylist()] if rows else []
        wanted = [when for _, when in tables]
        assert all(value in wanted for value in kept)


@given(
    cells=st.lists(st.sampled_from([1, -7, 2**63 - 1, Decimal("1.25"), Decimal("12345.678"), None]), max_size=8),
    chunk=st.integers(1, 4),
)
@settings(STEADY, max_examples=40)
def test_whole_numbers_and_decimals_go_into_one_column(cells, chunk):
    rows, failed, _ = outcome(cells, "flat", chunk, "out/")
    assert (rows, failed) == ([{"c": cell} for cell in cells], [])


@given(
    records=st.lists(st.lists(st.sampled_from([1, 2**60, 0.5, "x"]), max_size=3), max_size=8),
    chunk=st.integers(1, 4),
)
@settings(STEADY, max_examples=60)
def test_a_record_of_many_rows_that_fails_leaves_no_type_behind(records, chunk):
    def run(chunk):
        with tempfile.TemporaryDirectory() as folder:
            result = bf.map_records(
                lambda at: iter([{"c": cell} for cell in records[at]]),
                bf.records(range(len(records))),
                into=f"{folder}/out/",
                chunk=chunk,
                executor="serial",
            )
            return seen(result).values, result.errors["record"].to_pylist()

    rows, failed = run(chunk)
    assert run(len(records) + 1) == (rows, failed)
    assert rows == [{"c": cell} for at, cells in enumerate(records, 1) for cell in cells if at not in failed]
