"""Parquet files: cut by row groups, and inside them."""

from __future__ import annotations

import os
import pickle
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import WHOLE, draw, halves, read, read_chunks, writer

import batchflow as bf
from batchflow.errors import FormatError
from batchflow.io.readers import read_parquet, records
from batchflow.io.sources.parquet import exact_instants

TABLE = pa.table(
    {"n": range(100), "s": [f"text {at}" for at in range(100)], "l": [[at] * (at % 3) for at in range(100)]}
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    pq.write_table(TABLE, tmp_path / "x.parquet", row_group_size=30)
    return str(tmp_path / "x.parquet")


def spans(path: str, weight: int) -> list[tuple[int, int | None]]:
    return [(span.start, span.stop) for one in draw(read_parquet(path), weight) for span in one.chunk.spans]


def rows_to_weight(path: str, rows: int) -> int:
    return round(rows * Path(path).stat().st_size / 100)


def test_small_files_are_read_whole(path):
    assert spans(path, WHOLE) == [(0, None)]
    seen = read(read_parquet(path))
    assert seen.rows == TABLE.to_pylist()
    assert seen.numbers == list(range(1, 101))
    assert [place for _, _, place, _ in seen.records] == [(at, at + 1) for at in range(100)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (30, [(0, 30), (30, 60), (60, 90), (90, 100)]),
        (25, [(0, 30), (30, 60), (60, 90), (90, 100)]),
        (50, [(0, 60), (60, 100)]),
        (10, [(0, 10), (10, 20), (20, 30), (30, 40), (40, 50), (50, 60), (60, 70), (70, 80), (80, 90), (90, 100)]),
    ],
)
def test_cuts_are_at_the_ends_of_row_groups_where_one_is_near(path, rows, expected):
    assert spans(path, rows_to_weight(path, rows)) == expected


@pytest.mark.parametrize("rows", [1, 7, 13, 30, 45, 99])
@pytest.mark.parametrize("columns", [None, ["s"], ["l", "n"]])
def test_any_cut_gives_the_same(path, rows, columns):
    source = read_parquet(path, columns=columns)
    whole = read(source)
    assert read(source, rows_to_weight(path, rows)) == whole
    table = TABLE if columns is None else TABLE.select(columns)
    assert whole.rows == table.to_pylist()


def test_halves(path):
    source = read_parquet([path, path.replace("x.", "./x."), __file__])
    drawn = draw(source, rows_to_weight(path, 40))
    assert read_chunks(source, [half for one in drawn for half in halves(source, one.chunk)]) == read(source)


def test_batches_larger_than_a_block_and_groups_that_end_inside_one(tmp_path):
    table = pa.table({"n": range(50_000)})
    path = tmp_path / "x.parquet"
    pq.write_table(table, path, row_group_size=12_345)
    for weight in (WHOLE, path.stat().st_size // 7):
        assert read(read_parquet(str(path)), weight).rows == table.to_pylist()


@pytest.mark.parametrize("rows", [0, 1])
def test_files_with_hardly_a_row(tmp_path, rows):
    pq.write_table(TABLE.slice(0, rows), tmp_path / "x.parquet")
    for weight in (WHOLE, 1):
        assert read(read_parquet(str(tmp_path)), weight).rows == TABLE.slice(0, rows).to_pylist()


@pytest.mark.parametrize(("name", "meant"), [("nope", ""), ("price", "; did you mean 'prise'?")])
def test_a_column_that_is_missing_is_a_failure_that_names_those_there(tmp_path, name, meant):
    pq.write_table(TABLE.rename_columns(["n", "prise", "l"]), tmp_path / "x.parquet")
    seen = read(read_parquet(str(tmp_path), columns=["prise", name]), WHOLE)
    assert (seen.rows, seen.messages) == ([], [f"no column {name!r}; there are n, prise, l{meant}"])


@pytest.mark.parametrize("weight", [WHOLE, 1])
def test_a_file_that_is_no_parquet_is_one_failure_and_the_others_go_on(tmp_path, path, weight):
    write = writer(tmp_path)
    whole = Path(path).read_bytes()
    bad = [write(b"text" * 100, "a"), write(whole[:-20], "b"), write(b"PAR1PAR1", "c"), write(b"", "d")]
    seen = read(read_parquet([*bad, path]), weight)
    assert seen.rows == TABLE.to_pylist()
    assert [failure[:4] for failure in seen.failures] == [(name, 1, 0, None) for name in bad]
    assert read_parquet([*bad, path]).record_weight(read_parquet([*bad, path]).inputs()) == len(whole) / 100


def test_a_damage_inside_comes_after_the_rows_before_it(tmp_path):
    path = tmp_path / "x.parquet"
    table = pa.table({"n": range(20_000)})
    pq.write_table(table, path, row_group_size=10_000, use_dictionary=False, compression="none")
    data = bytearray(path.read_bytes())
    at = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data[at : at + 40] = b"\xff" * 40
    path.write_bytes(data)
    seen = read(read_parquet(str(path)))
    assert seen.rows == table.to_pylist()[: len(seen.rows)]
    assert len(seen.rows) >= 8192
    assert [failure[1] for failure in seen.failures] == [len(seen.rows) + 1]


@pytest.fixture
def decoders(monkeypatch):
    """Note which row groups are decoded each time that a decoder is made."""
    made: list[list[int]] = []
    before = pq.ParquetFile.iter_batches

    def iter_batches(self, *args, row_groups, **options):
        made.append(row_groups)
        return before(self, *args, row_groups=row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    return made


def test_many_spans_of_a_row_group_decode_it_once(path, decoders):
    source = read_parquet(path)
    (drawn,) = draw(source)
    (whole,) = drawn.chunk.spans
    spans = [whole._replace(start=start, stop=start + 5) for start in range(0, 100, 5)]
    rows = [row for span in spans for block in source.blocks(span, None) for row in block.rows.to_pylist()]
    assert (rows, decoders) == (TABLE.to_pylist(), [[0], [1], [2], [3]])
    del decoders[:]
    every_other = [
        row for span in spans[::2] for block in source.blocks(span, None) for row in block.rows.to_pylist()
    ]
    assert every_other == [row for at, row in enumerate(TABLE.to_pylist()) if at // 5 % 2 == 0]
    assert decoders == [[0], [1], [2], [3]]


def test_spans_in_any_order_and_two_at_a_time(path, decoders):
    source = read_parquet(path)
    (drawn,) = draw(source)
    (whole,) = drawn.chunk.spans
    rows = TABLE.to_pylist()

    def read_span(start, stop):
        for block in source.blocks(whole._replace(start=start, stop=stop), None):
            yield from block.rows.to_pylist()

    for start, stop in [(50, 70), (10, 20), (15, 100), (0, 1), (29, 31), (31, 32)]:
        assert list(read_span(start, stop)) == rows[start:stop]
    assert list(zip(read_span(0, 50), read_span(40, 90), strict=True)) == list(
        zip(rows[:50], rows[40:90], strict=True)
    )


def test_no_file_stays_open_but_the_one_in_the_middle_of_which_a_worker_is(path, tmp_path):
    other = str(tmp_path / "other.parquet")
    pq.write_table(TABLE, other)

    def opened() -> set[str]:
        links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        return {os.readlink(link) for link in links if os.path.islink(link)} & {path, other}

    source = read_parquet([path, other])
    one, two = [span for drawn in draw(source) for span in drawn.chunk.spans]
    list(source.blocks(one._replace(stop=10), None))
    assert opened() == {path}
    assert pickle.loads(pickle.dumps(source)) == source
    list(source.blocks(two._replace(stop=10), None))
    assert opened() == {other}
    list(source.blocks(two, None))
    assert opened() == set()


SENTINEL = datetime(9999, 12, 31)


@pytest.mark.parametrize("chunk", [1, 2, 10])
def test_instants_of_96_bits_keep_years_and_nanoseconds(tmp_path, chunk):
    times = [SENTINEL, datetime(2020, 1, 1, 0, 0, 0, 5), None]
    far = pa.table(
        {
            "t": pa.array(times, pa.timestamp("us")),
            "l": pa.array([[SENTINEL], None, []], pa.list_(pa.timestamp("us"))),
        }
    )
    fine = pa.table({"t": pa.array([1_704_067_200_123_456_789, None], pa.timestamp("ns"))})
    for name, table in (("far", far), ("fine", fine)):
        pq.write_table(table, tmp_path / f"{name}.parquet", use_deprecated_int96_timestamps=True)
        for verb in (bf.map_records, bf.map_batches):
            result = verb(
                lambda given: given,
                read_parquet(tmp_path / f"{name}.parquet"),
                into=tmp_path / f"{verb.__name__}-{name}.arrow",
                executor="serial",
                chunk=chunk,
            )
            assert (result.table.schema.types, result.table.to_pylist()) == (table.schema.types, table.to_pylist())


def test_instants_of_96_bits_that_need_both_are_refused(tmp_path):
    coarse = pa.record_batch({"t": pa.array([253_402_214_400_000_000, 1], pa.timestamp("us"))})
    fine = pa.record_batch({"t": pa.array([-4_852_202_631_933_722_624, 1001], pa.timestamp("ns"))})
    with pytest.raises(FormatError, match="column 't' has nanoseconds and years beyond 1677 to 2262"):
        exact_instants(coarse, fine)


def test_columns_of_one_name_are_error_rows_of_records(tmp_path):
    table = pa.Table.from_arrays([pa.array([1, 2]), pa.array([3, 4])], ["a", "a"])
    pq.write_table(table, tmp_path / "twice.parquet")
    result = bf.map_records(lambda row: row, read_parquet(tmp_path / "twice.parquet"), executor="serial")
    assert (result.values, result.errors["record"].to_pylist()) == ([], [1, 2])
    assert "two columns are named 'a'" in result.errors["message"][0].as_py()


def test_dictionary_in_one_file_and_text_in_another_unite(tmp_path):
    texts = ["a", "b", None]
    pq.write_table(pa.table({"s": pa.array(texts).dictionary_encode()}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"s": pa.array(texts)}), tmp_path / "2.parquet")
    result = bf.map_batches(
        lambda table: table, read_parquet(tmp_path / "*.parquet"), into=tmp_path / "out/", executor="serial"
    )
    assert (result.table["s"].to_pylist(), result.report.failed) == (texts * 2, 0)


def test_records_of_a_chunk_that_does_not_fit_are_all_counted(tmp_path):
    pq.write_table(pa.table({"s": ["a"] * 9}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"s": range(1000)}), tmp_path / "2.parquet")
    result = bf.map_batches(
        lambda table: table, read_parquet(tmp_path / "*.parquet"), into=tmp_path / "out/", executor="serial"
    )
    assert (result.report.rows_in, result.report.rows_out, result.report.failed) == (1009, 9, 1000)


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (pa.array([2**60, 0], pa.timestamp("s")), "a timestamp[s] beyond the years 1 to 9999"),
        (pa.array([2**30, 0], pa.int32()).cast(pa.date32()), "a date32[day] beyond the years 1 to 9999"),
        (pa.array([[2**60], [0]], pa.list_(pa.timestamp("s"))), "beyond the years"),
    ],
)
def test_value_that_python_does_not_hold_is_an_error_row(array, told, executor):
    result = bf.map_records(lambda row: 1, records(pa.table({"c": array})), executor=executor)
    assert result.values == [1]
    assert result.errors.select(["record", "phase"]).to_pylist() == [{"record": 1, "phase": "read"}]
    assert "column 'c' holds a" in result.errors["message"][0].as_py()
    assert told in result.errors["message"][0].as_py()
