"""Jobs from end to end in this process: results, sinks, stops, streams, refusals."""

import collections
import csv
import io
import json
import os
import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fake import FakeExecutor
from seen import seen

import batchflow as bf
from batchflow import errors
from batchflow.io.formats.parquet import ParquetFormat

SERIAL = "serial"


def run(fn, data, **options):
    return bf.map_records(fn, bf.records(data), executor=SERIAL, **options)


def odd_fails(n):
    if n % 2:
        message = f"{n} is odd"
        raise ValueError(message)
    return {"n": n}


class TestMemory:
    def test_mappings_become_rows_in_input_order(self):
        result = run(lambda n: {"n": n, "text": str(n)}, range(100), chunk=7)
        assert result.table.to_pylist() == [{"n": n, "text": str(n)} for n in range(100)]
        assert result.values == result.table.to_pylist()
        assert len(result) == 100

    def test_scalars_become_the_column_value(self):
        result = run(lambda n: n * n, range(10))
        assert result.table.to_pydict() == {"value": [n * n for n in range(10)]}
        assert result.values == [n * n for n in range(10)]

    def test_none_gives_no_row_and_a_generator_many(self):
        def spread(n):
            if n == 2:
                return None
            return ({"n": n, "k": k} for k in range(n))

        assert run(spread, range(4)).values == [
            {"n": 1, "k": 0},
            {"n": 3, "k": 0},
            {"n": 3, "k": 1},
            {"n": 3, "k": 2},
        ]

    def test_a_list_is_one_value(self):
        assert run(lambda n: [n] * n, range(3)).values == [[], [0 + 1], [2, 2]]

    def test_other_objects_come_back_as_they_are(self):
        result = run(lambda n: {n} if n % 2 else n, range(4), chunk=1)
        assert result.values == [0, {1}, 2, {3}]
        with pytest.raises(
            errors.SchemaError,
            match=r"row 2: the function returned a set, .*: take the values from result\.values",
        ):
            _ = result.table

    @pytest.mark.parametrize(
        "value",
        [True, 1, 1.5, "é", b"\x00", date(2026, 1, 2), datetime(2026, 1, 2, 3, tzinfo=UTC), Decimal("1.50")],
    )
    def test_scalars_come_back_equal(self, value):
        assert run(lambda _: value, range(2)).values == [value, value]

    def test_integers_larger_than_arrow_has_come_back_as_objects(self):
        assert run(lambda _: 2**80, range(2)).values == [2**80, 2**80]

    def test_schemas_of_chunks_are_unified(self):
        def drift(n):
            return [{"a": None}, {"a": 1}, {"a": 2.5, "b": "x"}][n]

        table = run(drift, range(3), chunk=1).table
        assert table.schema == pa.schema([("a", pa.float64()), ("b", pa.string())])
        assert table.to_pylist() == [{"a": None, "b": None}, {"a": 1.0, "b": None}, {"a": 2.5, "b": "x"}]

    def test_what_cannot_be_unified_names_column_chunk_and_both_types(self):
        result = run(lambda n: {"a": n if n == 0 else "x"}, range(2), chunk=1)
        assert result.values == [{"a": 0}, {"a": "x"}]
        with pytest.raises(errors.SchemaError, match=r"row 2: column 'a': int64 and string in one column"):
            _ = result.table

    def test_arrow_libraries_take_a_result_as_it_is(self):
        result = run(lambda n: {"n": n}, range(5))
        assert pa.table(result)["n"].to_pylist() == [0, 1, 2, 3, 4]
        assert pl.DataFrame(result)["n"].to_list() == [0, 1, 2, 3, 4]
        assert duckdb.from_arrow(result.table).aggregate("sum(n)").fetchall() == [(10,)]
        assert pd.DataFrame.from_records(result.values)["n"].tolist() == [0, 1, 2, 3, 4]

    def test_no_records_give_an_empty_table(self):
        result = run(lambda n: n, [])
        assert (result.values, result.table.num_rows, result.errors.num_rows) == ([], 0, 0)

    @pytest.mark.parametrize("executor", ["serial", "processes"])
    def test_a_function_that_changes_the_directory_does_not_mislead_the_reader(
        self, tmp_path, monkeypatch, executor
    ):
        monkeypatch.chdir(tmp_path)
        for name in "abc":
            (tmp_path / f"{name}.txt").write_text(f"{name}\n")

        def strays(line):
            os.chdir("/")
            return line

        result = bf.map_records(strays, bf.read_text("*.txt"), into="out/", executor=executor)
        assert result.errors.to_pylist() == []
        assert pq.read_table(tmp_path / "out")["value"].to_pylist() == ["a", "b", "c"]

    def test_rows_of_any_mapping_keep_their_own_keys(self):
        result = run(collections.Counter, ["ab", "cd"], chunk=10)
        assert result.table.to_pylist() == [
            {"a": 1, "b": 1, "c": None, "d": None},
            {"a": None, "b": None, "c": 1, "d": 1},
        ]

    @pytest.mark.parametrize(
        "pair",
        [
            (date(2026, 1, 2), 1),
            (datetime(2026, 1, 2), 2.5),
            (1.5, True),
            (Decimal("1.5"), 0.5),
            ("x", b"y"),
            (1, "x"),
        ],
    )
    @pytest.mark.parametrize("chunk", [1, 2])
    def test_what_arrow_would_change_is_refused_together_and_apart(self, pair, chunk):
        result = run(lambda n: pair[n], range(2), chunk=chunk)
        assert result.values == list(pair)
        with pytest.raises(errors.SchemaError):
            _ = result.table

    def test_a_generator_is_read_by_one_job_only(self):
        job = bf.Job(abs, bf.records(iter([1, 2])), executor=SERIAL)
        assert job.run().values == [1, 2]
        with pytest.raises(errors.InputError, match="an iterator, which another job has read"):
            job.run()

    def test_few_lines_of_a_slow_function_are_spread_over_the_slots(self, tmp_path):
        (tmp_path / "urls.txt").write_text("".join(f"{n}\n" for n in range(100)))
        executor = FakeExecutor(2)
        result = bf.map_records(int, bf.read_text(tmp_path / "urls.txt"), executor=executor)
        assert result.values == list(range(100))
        assert len(executor.performed) >= 4


class TestErrors:
    def test_a_record_that_fails_is_a_row_with_its_place_and_cause(self):
        result = run(odd_fails, [0, 1, 2, 3])
        assert seen(result).values == [{"n": 0}, {"n": 2}]
        rows = result.errors.drop_columns(["traceback", "worker", "seconds"]).to_pylist()
        assert rows == [
            {
                "source": "records",
                "start": n,
                "stop": n + 1,
                "record": n + 1,
                "payload": str(n),
                "phase": "call",
                "error_type": "ValueError",
                "message": f"{n} is odd",
                "attempts": 1,
            }
            for n in (1, 3)
        ]

    def test_a_traceback_shows_the_users_frames_only(self):
        trace = run(odd_fails, [1]).errors["traceback"][0].as_py()
        assert "in odd_fails" in trace
        assert f"{os.sep}batchflow{os.sep}worker.py" not in trace

    def test_stop_iteration_is_an_error_and_not_an_end(self):
        def stop(n):
            if n == 1:
                raise StopIteration
            return n

        result = run(stop, range(4))
        assert seen(result).values == [0, 2, 3]
        assert result.errors["record"].to_pylist() == [2]

    def test_a_generator_that_fails_half_way_gives_no_row_of_its_record(self):
        def half(n):
            yield n
            if n == 1:
                raise KeyError(n)
            yield n

        result = run(half, range(3))
        assert seen(result).values == [0, 0, 2, 2]
        assert result.errors["record"].to_pylist() == [2]

    @pytest.mark.parametrize("chunk", [1, 2, 3, 100])
    def test_a_generator_of_records_that_raises_is_an_error_and_what_came_before_is_kept(self, chunk):
        def source():
            yield from range(4)
            raise OSError("the line went dead")

        result = run(lambda n: n, source(), chunk=chunk)
        assert seen(result).values == [0, 1, 2, 3]
        rows = result.errors.select(["start", "record", "phase", "error_type", "message"]).to_pylist()
        assert rows == [
            {
                "start": 4,
                "record": 5,
                "phase": "read",
                "error_type": "SourceError",
                "message": "the iterator raised OSError: the line went dead",
            }
        ]

    def test_sys_exit_costs_its_record_only(self):
        result = run(lambda n: exit(3) if n == 1 else n, range(3))
        assert seen(result).values == [0, 2]
        assert result.errors["error_type"].to_pylist() == ["SystemExit"]

    def test_a_batch_that_fails_is_halved_until_the_guilty_stand_alone(self):
        def fails_on_primes(table):
            if {13, 77} & set(table["value"].to_pylist()):
                raise ValueError("bad number")
            return table

        result = bf.map_batches(fails_on_primes, bf.records(range(100)), executor=SERIAL, chunk=100)
        assert seen(result).values == [n for n in range(100) if n not in (13, 77)]
        assert result.errors["record"].to_pylist() == [14, 78]
        assert result.errors["payload"].to_pylist() == ["13", "77"]
        assert result.report.failed == 2

    def test_raise_for_errors(self):
        assert run(lambda n: n, [1]).raise_for_errors().values == [1]
        with pytest.raises(
            errors.FailedRecordsError, match="1 record failed: records, record 2: ValueError"
        ) as caught:
            run(odd_fails, [0, 1]).raise_for_errors()
        assert caught.value.errors.num_rows == 1

    def test_numbers_count_on_in_every_file_of_a_pack_that_is_halved(self, tmp_path):
        for name in "abc":
            (tmp_path / f"{name}.txt").write_text("".join(f"{name}{n}\n" for n in range(8)))

        def fails(table):
            if {"a3", "a4", "b5"} & set(table["value"].to_pylist()):
                raise ValueError("bad line")
            return table

        result = bf.map_batches(fails, bf.read_text(tmp_path), executor=SERIAL, chunk="1MB")
        found = [(Path(row["source"]).name, row["record"], row["payload"]) for row in result.errors.to_pylist()]
        assert found == [("a.txt", 4, "a3"), ("a.txt", 5, "a4"), ("b.txt", 6, "b5")]

    def test_an_exception_and_a_record_that_cannot_be_told_of(self):
        class MuteError(Exception):
            def __str__(self):
                raise RuntimeError

        class Shy:
            def __repr__(self):
                raise RuntimeError

        def fails(record):
            raise MuteError

        row = run(fails, [Shy()]).errors.select(["record", "payload", "error_type", "message"]).to_pylist()
        assert row == [
            {
                "record": 1,
                "payload": "<Shy whose repr() raised RuntimeError>",
                "error_type": "MuteError",
                "message": "<MuteError whose str() raised RuntimeError>",
            }
        ]


class TestMaxErrors:
    def test_zero_stops_at_the_first_and_carries_what_was_done(self):
        with pytest.raises(errors.StoppedError, match="more than max_errors=0 failed; 1 record failed") as caught:
            run(odd_fails, range(100), max_errors=0, chunk=2)
        assert caught.value.errors["record"].to_pylist() == [2]
        assert caught.value.report.rows_in == 2

    def test_n_errors_are_allowed(self):
        assert run(odd_fails, range(6), max_errors=3).errors.num_rows == 3
        with pytest.raises(errors.StoppedError):
            run(odd_fails, range(8), max_errors=3)

    def test_a_fraction_is_looked_at_from_a_thousand_records_on_and_at_the_end(self):
        assert run(odd_fails, range(100), max_errors=0.5).errors.num_rows == 50
        with pytest.raises(errors.StoppedError):
            run(odd_fails, range(100), max_errors=0.49)
        with pytest.raises(errors.StoppedError) as caught:
            run(odd_fails, range(10_000), max_errors=0.1, chunk=100)
        assert caught.value.report.rows_in == 1000


class TestCombine:
    @pytest.mark.parametrize("chunk", [1, 7, 1000])
    def test_a_tree_of_any_shape_gives_the_same(self, chunk):
        def total(table):
            return pa.table({"value": [sum(table["value"].to_pylist())]})

        assert run(lambda n: n, range(500), combine=total, chunk=chunk).values == [sum(range(500))]

    def test_neighbours_are_combined_in_input_order(self):
        def join(table):
            return pa.table({"value": ["".join(table["value"].to_pylist())]})

        assert run(str, range(300), combine=join, chunk=1).values == ["".join(map(str, range(300)))]

    def test_a_chunk_without_rows_is_not_combined(self):
        def total(table):
            return pa.table({"x": [sum(table["x"].to_pylist())]})

        result = run(lambda n: {"x": n} if n > 7 else None, range(10), combine=total, chunk=2)
        assert (result.values, result.errors.num_rows, result.report.rows_in) == ([{"x": 17}], 0, 10)

    def test_a_combine_that_fails_on_one_record_costs_that_record(self):
        def total(table):
            if 8 in table["value"].to_pylist():
                raise ValueError("no eights")
            return pa.table({"value": [sum(table["value"].to_pylist())]})

        result = run(lambda n: 2**n, range(6), combine=total, chunk=6)
        assert seen(result).values == [1 + 2 + 4 + 16 + 32]
        assert result.errors.select(["record", "payload", "message"]).to_pylist() == [
            {"record": 4, "payload": "3", "message": "combine= failed: no eights"}
        ]

    def test_a_combine_that_fails_in_the_tree_says_so(self):
        def refuses(table):
            if table.num_rows > 1:
                raise ValueError("too many")
            return table

        with pytest.raises(bf.BatchflowError, match="combine= failed: ValueError: too many"):
            run(lambda n: n, range(4), combine=refuses, chunk=1)


class TestStream:
    def test_tables_come_in_input_order(self):
        tables = bf.stream_batches(lambda t: t, bf.records(range(100)), executor=SERIAL, chunk=10)
        assert [table["value"].to_pylist() for table in tables] == [
            list(range(n, n + 10)) for n in range(0, 100, 10)
        ]

    def test_a_generator_is_read_no_further_than_the_consumer_needs(self):
        drawn = []

        def source():
            for n in range(10**9):
                drawn.append(n)
                yield n

        tables = bf.stream_batches(lambda t: t, bf.records(source()), executor=SERIAL, chunk=10)
        assert next(tables)["value"].to_pylist() == list(range(10))
        tables.close()
        assert len(drawn) < 100

    @pytest.mark.parametrize("executor", [bf.Serial, bf.Processes])
    def test_two_streams_share_a_warm_executor(self, executor):
        with executor() as warm:
            one, two = (
                bf.stream_batches(fn, bf.records(range(50)), per="record", executor=warm, chunk=5)
                for fn in (lambda n: n, lambda n: -n)
            )
            pairs = [(a["value"].to_pylist(), b["value"].to_pylist()) for a, b in zip(one, two, strict=True)]
        assert pairs == [(list(range(n, n + 5)), [-k for k in range(n, n + 5)]) for n in range(0, 50, 5)]

    @pytest.mark.parametrize("ordered", [True, False])
    def test_closing_a_stream_early_ends_its_workers(self, ordered):
        before = set(psutil.Process().children())  # other tests keep executors warm
        executor = bf.Processes(2)
        tables = bf.stream_batches(
            lambda t: t, bf.records(range(10**9)), chunk=10, executor=executor, ordered=ordered
        )
        assert next(tables).num_rows == 10
        (zygote,) = set(psutil.Process().children()) - before
        workers = zygote.children()
        assert len(workers) == 2
        tables.close()
        assert not any(process.is_running() for process in (zygote, *workers))

    def test_a_failure_stops_a_stream(self):
        tables = bf.stream_batches(odd_fails, bf.records([0, 1]), per="record", executor=SERIAL, chunk=1)
        assert next(tables).to_pylist() == [{"n": 0}]
        with pytest.raises(errors.StoppedError):
            next(tables)

    def test_a_stream_writes_nothing(self):
        job = bf.Job(fn=len, source=bf.records([1]), into="x/")
        with pytest.raises(errors.UsageError, match="a stream has no into="):
            job.stream()


FORMATS = {
    "parquet": pq.read_table,
    "csv": pyarrow.csv.read_csv,
    "jsonl": lambda path: pa.Table.from_pylist([json.loads(line) for line in Path(path).read_text().splitlines()]),
    "arrow": lambda path: pa.ipc.open_file(path).read_all(),
}


class TestSinks:
    @pytest.mark.parametrize("name", FORMATS)
    @pytest.mark.parametrize("chunk", [3, 1000])
    def test_one_file(self, tmp_path, name, chunk):
        path = tmp_path / f"x.{name}"
        result = run(lambda n: {"n": n, "s": f"é{n}\n"}, range(50), into=path, chunk=chunk)
        want = [{"n": n, "s": f"é{n}\n"} for n in range(50)]
        if name == "csv":
            rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline="")))
            assert rows == [{"n": str(row["n"]), "s": row["s"]} for row in want]
        else:
            assert FORMATS[name](path).to_pylist() == want
        assert (result.path, result.report.rows_out) == (path, 50)
        assert result.table.num_rows == 50

    @pytest.mark.parametrize("name", FORMATS)
    def test_parts_are_in_order_and_near_the_target_whatever_the_chunks(self, tmp_path, name):
        run(
            lambda n: {"n": n, "s": os.urandom(50).hex()},
            range(5000),
            into=tmp_path / "out/",
            format=name,
            chunk=100,
            part_size="50kB",
        )
        parts = sorted((tmp_path / "out").glob(f"part-*.{name}"))
        assert len(parts) >= 4
        numbers = [n for part in parts for n in FORMATS[name](part)["n"].to_pylist()]
        assert numbers == list(range(5000))
        sizes = [part.stat().st_size for part in parts[:-1]]
        assert max(sizes) < 3 * min(sizes)

    def test_readers_see_only_the_parts(self, tmp_path):
        result = run(lambda n: {"n": n}, range(10), into=tmp_path / "out/")
        assert ds.dataset(tmp_path / "out").to_table()["n"].to_pylist() == list(range(10))
        assert result.values == [{"n": n} for n in range(10)]
        assert pa.table(result)["n"].to_pylist() == list(range(10))
        files = sorted(path.name for path in (tmp_path / ".out_batchflow").iterdir())
        assert files == ["errors.pq", "ledger.log", "plan.json", "report.html", "report.json", "trace.json"]

    @pytest.mark.parametrize("name", ["parquet", "arrow", "csv"])
    def test_all_parts_have_the_columns_and_types_that_only_later_ones_brought(self, tmp_path, name):
        def drift(n):
            return {"n": n, "x": None if n < 500 else "late"} | ({"y": n / 2} if n >= 900 else {})

        run(drift, range(1000), into=tmp_path / "out/", format=name, chunk=50, part_size=1000)
        parts = sorted((tmp_path / "out").glob("part-*"))
        tables = [FORMATS[name](part) for part in parts]
        assert len(parts) > 2
        assert {tuple(table.column_names) for table in tables} == {("n", "x", "y")}
        assert [n for table in tables for n in table["n"].to_pylist()] == list(range(1000))
        if name != "csv":
            assert len({str(table.schema) for table in tables}) == 1

    def test_a_value_that_no_sink_holds_is_a_convert_error_of_its_record(self, tmp_path):
        result = run(lambda n: {n} if n == 1 else {"n": n}, range(3), into=tmp_path / "x.parquet")
        assert seen(result).values == [{"n": 0}, {"n": 2}]
        assert result.errors.select(["record", "phase", "error_type"]).to_pylist() == [
            {"record": 2, "phase": "convert", "error_type": "NotTabularError"}
        ]

    @pytest.mark.parametrize("chunk", [1, 2, 3, 5, None])
    def test_a_record_of_another_type_than_those_before_fails_alone_however_the_input_is_cut(
        self, tmp_path, chunk
    ):
        types = [None, None, 1, "x", 2, "y", None, 3.5, "z", 4]
        result = run(lambda n: {"n": types[n]}, range(10), into=tmp_path / "x.parquet", chunk=chunk)
        assert seen(result).table["n"].to_pylist() == [None, None, 1, 2, None, 3.5, 4]
        rows = result.errors.select(["record", "phase", "error_type", "message"]).to_pylist()
        assert rows == [
            {
                "record": number,
                "phase": "convert",
                "error_type": "SchemaError",
                "message": f"column 'n' is string in this record, but {before} before: give it one type in the function",
            }
            for number, before in ((4, "int64"), (6, "int64"), (9, "double"))
        ]
        assert (result.report.rows_out, result.report.failed) == (7, 3)
        assert not (tmp_path / ".x.parquet_batchflow/pieces").exists()

    def test_a_batch_of_another_type_is_an_error_of_its_chunk(self, tmp_path):
        def drift(table):
            return table.cast(pa.schema([("value", pa.string())])) if table["value"][0].as_py() == 1 else table

        result = bf.map_batches(drift, bf.records(range(3)), into=tmp_path / "x.parquet", chunk=1, executor=SERIAL)
        assert seen(result).table["value"].to_pylist() == [0, 2]
        row = result.errors.select(["start", "stop", "phase", "error_type", "message"]).to_pylist()
        assert row == [
            {
                "start": 1,
                "stop": 2,
                "phase": "convert",
                "error_type": "SchemaError",
                "message": "column 'value' is string in records[1:2], but int64 before: give it one type in the function",
            }
        ]
        assert (result.report.rows_out, result.report.failed) == (2, 1)

    @pytest.mark.parametrize(
        ("into", "value", "text"),
        [
            ("x.csv", [1], "a CSV cell cannot hold"),
            ("x.parquet", pa.MonthDayNano([1, 2, 3]), "month_day_nano_interval, which Parquet cannot"),
        ],
    )
    def test_a_type_that_the_format_does_not_have_is_an_error_of_its_record(self, tmp_path, into, value, text):
        result = run(lambda n: {"n": n, "a": value if n == 50 else None}, range(100), into=tmp_path / into)
        assert seen(result).table["n"].to_pylist() == [n for n in range(100) if n != 50]
        assert result.errors["record"].to_pylist() == [51]
        assert text in result.errors["message"][0].as_py()

    def test_rows_that_cannot_be_written_are_found_and_no_other_is_lost(self, tmp_path, monkeypatch):
        write = ParquetFormat.write_piece

        def fragile(self, table, path):
            if 13 in table["value"].to_pylist():
                raise ValueError("will not write 13")
            write(self, table, path)

        monkeypatch.setattr(ParquetFormat, "write_piece", fragile)
        monkeypatch.setattr("batchflow.worker.sinks.PIECE_BYTES", 100)
        result = run(lambda n: n, range(20_000), into=tmp_path / "x.parquet", chunk=10_000)
        assert result.errors.select(["record", "phase", "message"]).to_pylist() == [
            {"record": 14, "phase": "write", "message": "will not write 13"}
        ]
        monkeypatch.undo()
        assert result.table["value"].to_pylist() == [n for n in range(20_000) if n != 13]

    @pytest.mark.parametrize("chunk", [1, 2, 3])
    @pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
    def test_row_without_columns_is_a_row_of_nulls(self, tmp_path, name, chunk):
        rows = [{}, {"a": 1}, {}]
        result = run(lambda n: rows[n], range(3), into=tmp_path / name, chunk=chunk)
        assert (result.values, result.report.failed) == ([{"a": None}, {"a": 1}, {"a": None}], 0)

    @pytest.mark.parametrize("chunk", [1, 2])
    def test_rows_without_any_column_have_a_null_column(self, tmp_path, chunk):
        result = run(lambda n: {}, range(2), into=tmp_path / "x.parquet", chunk=chunk)
        assert (result.table.to_pylist(), result.report.failed) == ([{"value": None}] * 2, 0)

    @pytest.mark.parametrize("chunk", [1, 2, 3, 5])
    @pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
    def test_empty_mapping_gets_the_keys_of_others_in_any_cut(self, tmp_path, name, chunk):
        rows = [{"c": {}}, {"c": {"a": 1}}, {"c": {}}, {"c": None}, {"c": {"a": None}}]
        result = run(lambda n: rows[n], range(5), into=tmp_path / name, chunk=chunk)
        assert result.values == [
            {"c": row["c"] and {"a": row["c"].get("a")} if row["c"] != {} else {"a": None}} for row in rows
        ]
        assert result.report.failed == 0

    @pytest.mark.parametrize("chunk", [1, 3])
    def test_mappings_that_never_have_a_key_get_one_in_parquet(self, tmp_path, chunk):
        rows = [{"c": {}, "l": [{}]}, {"c": None, "l": []}, {"c": {}, "l": None}]
        result = run(lambda n: rows[n], range(3), into=tmp_path / "x.parquet", chunk=chunk)
        assert result.values == [
            {"c": {"_": None}, "l": [{"_": None}]},
            {"c": None, "l": []},
            {"c": {"_": None}, "l": None},
        ]

    def test_tables_without_rows_keep_their_schema(self, tmp_path):
        result = bf.map_batches(lambda t: t.slice(0, 0), bf.records([1]), into=tmp_path / "out/", executor=SERIAL)
        assert result.table.schema == pa.schema([("value", pa.int64())])

    def test_one_large_chunk_makes_parts_near_the_target_too(self, tmp_path, monkeypatch):
        monkeypatch.setattr("batchflow.worker.sinks.PIECE_BYTES", 50_000)
        result = run(
            lambda n: os.urandom(100), range(20_000), into=tmp_path / "out/", chunk=20_000, part_size="200kB"
        )
        sizes = [part.stat().st_size for part in (tmp_path / "out").glob("part-*")]
        assert len(sizes) == 3  # blocks of 8,192 records are the grain
        assert max(sizes) < 1_200_000
        assert result.report.rows_out == 20_000

    def test_a_function_that_cannot_be_shipped_leaves_the_old_output_alone(self, tmp_path):
        run(lambda n: n, [1], into=tmp_path / "out/")
        lock = threading.Lock()
        with pytest.raises(errors.FunctionError):
            bf.map_records(
                lambda n: lock, bf.records([1]), into=tmp_path / "out/", fresh=True, executor="processes"
            )
        assert pq.read_table(tmp_path / "out")["value"].to_pylist() == [1]

    def test_a_file_that_was_removed_is_written_anew_with_a_new_ledger(self, tmp_path):
        for _ in range(2):
            run(lambda n: n, range(10), into=tmp_path / "x.parquet", chunk=5)
            assert pq.read_table(tmp_path / "x.parquet")["value"].to_pylist() == list(range(10))
            (tmp_path / "x.parquet").unlink()
        lines = map(json.loads, (tmp_path / ".x.parquet_batchflow/ledger.log").read_text().splitlines())
        assert [next(iter(line)) for line in lines] == ["run", "schema", "chunk", "chunk", "part", "end"]

    def test_files_that_only_look_like_parts_are_kept(self, tmp_path):
        run(lambda n: n, [1], into=tmp_path / "out/")
        (tmp_path / "out/part-notes.csv").write_text("mine")
        run(lambda n: n, [2], into=tmp_path / "out/", fresh=True)
        assert (tmp_path / "out/part-notes.csv").read_text() == "mine"

    def test_no_rows_give_one_empty_part(self, tmp_path):
        result = run(lambda _: None, range(3), into=tmp_path / "out/")
        assert result.table.num_rows == 0
        assert [path.name for path in (tmp_path / "out").glob("part-*")] == ["part-00000.parquet"]

    def test_the_ledger_accounts_for_every_range(self, tmp_path):
        run(odd_fails, range(100), into=tmp_path / "out/", chunk=10)
        lines = [json.loads(line) for line in (tmp_path / ".out_batchflow/ledger.log").read_text().splitlines()]
        ranges = [line["ranges"] for line in lines if "chunk" in line]
        assert ranges == [[["records", n, n + 10, 10, 10, 5, 5]] for n in range(0, 100, 10)]

    def test_a_stop_leaves_the_error_table_and_what_is_done(self, tmp_path):
        with pytest.raises(errors.StoppedError):
            run(odd_fails, range(100), into=tmp_path / "out/", max_errors=2, chunk=1)
        assert pq.read_table(tmp_path / ".out_batchflow/errors.pq")["record"].to_pylist() == [2, 4, 6]
        result = run(odd_fails, range(100), into=tmp_path / "out/", chunk=1)
        assert result.report.before == 6
        assert pq.read_table(tmp_path / "out")["n"].to_pylist() == list(range(0, 100, 2))
        assert result.errors["record"].to_pylist() == list(range(2, 101, 2))
        assert not (tmp_path / ".out_batchflow/pieces").exists()

    def test_batches_with_pandas_metadata_make_one_dataset(self, tmp_path):
        def frame(table):
            return table.to_pandas().set_index("value", drop=False)

        result = bf.map_batches(
            frame, bf.records(range(50_000)), into=tmp_path / "x.parquet", executor=SERIAL, chunk=25_000
        )
        assert result.table["value"].to_pylist() == list(range(50_000))


class TestRefusals:
    def test_no_input(self, tmp_path):
        with pytest.raises(errors.InputError, match=r"no file matches '.*\*\.csv'"):
            bf.map_records(len, bf.read_text(tmp_path / "*.csv"))
        with pytest.raises(errors.InputError, match="does not exist"):
            bf.map_records(len, bf.read_text(tmp_path / "x.csv"))

    def test_what_is_no_source(self):
        with pytest.raises(errors.InputError, match="the input is a list, not a source"):
            bf.map_records(len, [1, 2])

    def test_a_function_that_cannot_be_called_as_the_job_does(self):
        with pytest.raises(errors.FunctionError, match=r"cannot be called with \(record\), as the job does"):
            run(lambda a, b: a, [1])

        async def later(n):
            return n

        with pytest.raises(
            errors.FunctionError, match=r"is an async function, which is for records: use map_records"
        ):
            bf.map_batches(later, bf.records([1]), executor=SERIAL)
        with pytest.raises(
            errors.FunctionError, match="is async, but the function is not: make both async, or none"
        ):
            run(lambda n, m: n, [1], setup=later)
        with pytest.raises(errors.FunctionError, match=r"combine=.*later is async, but it waits for nothing"):
            run(lambda n: n, [1], combine=later)
        with pytest.raises(errors.FunctionError, match="fn=3 cannot be called"):
            run(3, [1])
        with pytest.raises(errors.FunctionError, match="unexpected keyword argument 'y'"):
            run(lambda x: x, [1], args={"y": 1})

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"chunk": 0}, "chunk=0 must be positive"),
            ({"chunk": "8MB"}, "records in memory have no size in bytes"),
            ({"max_errors": 1.5}, "max_errors=1.5 must be a count, a fraction"),
            ({"max_errors": -1}, "max_errors=-1 is negative"),
            ({"part_size": "many"}, "'many' is not an amount of bytes"),
            ({"into": "x.docx"}, "'docx' is no output format"),
            ({"into": "x.csv", "format": "parquet"}, "ends like csv, but format='parquet'"),
            ({"into": "x/", "format": "xlsx"}, "unknown output format 'xlsx'"),
            ({"into": "s3://me:hush@bucket/x/"}, "must not hold credentials"),
            ({"into": "s3://bucket/x/?region=eu"}, "no options are taken behind"),
            ({"into": "gopher://bucket/x/"}, "cannot reach gopher://bucket/x: "),
            ({"into": "x/", "combine": lambda t: t}, "leave out into="),
            ({"per_task": bf.Resources(gpus=1)}, "placed by Ray only, not by serial"),
            ({"chunk": 2.5}, "chunk=2.5 must be positive"),
            (
                {"concurrency": 0},
                "concurrency=0 must be a whole number of calls at once in each worker, 1 or more",
            ),
            ({"concurrency": 2.0}, "concurrency=2.0 must be a whole number"),
            ({"concurrency": True}, "concurrency=True must be a whole number"),
            (
                {"rate": "50/day"},
                "rate='50/day' is not a rate: write calls per second as a number over 0, or like",
            ),
            ({"rate": 0}, "rate=0 is not a rate"),
            ({"executor": "dask"}, "unknown executor 'dask': use one of serial, processes, ray"),
            ({"per_task": bf.Resources(cpus=10_000)}, "one task asks for 10000 cpus"),
            (
                {"per_task": bf.Resources(memory="4GB"), "limits": bf.Resources(memory="1GB")},
                "4 GB of memory, but the job may",
            ),
        ],
    )
    def test_options_that_cannot_work(self, tmp_path, monkeypatch, options, text):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(errors.UsageError, match=text.replace("(", r"\(")):
            bf.map_records(lambda n: n, bf.records([1]), **({"executor": SERIAL} | options))
        assert list(tmp_path.iterdir()) == []

    def test_batches_come_one_at_a_time(self):
        with pytest.raises(errors.UsageError, match="concurrency=4 is for functions of records"):
            list(bf.stream_batches(lambda t: t, bf.records([1]), concurrency=4, executor=SERIAL))

    def test_a_destination_that_is_not_ours(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out/precious.txt").write_text("x")
        with pytest.raises(errors.DestinationError, match="was not made by batchflow"):
            run(lambda n: n, [1], into=f"{tmp_path}/out/", fresh=True)
        (tmp_path / "file.parquet").write_text("x")
        with pytest.raises(errors.DestinationError, match="was not made by batchflow"):
            run(lambda n: n, [1], into=tmp_path / "file.parquet", fresh=True)
        assert (tmp_path / "out/precious.txt").read_text() == "x"

    @pytest.mark.parametrize("into", ["out/", "x.parquet"])
    def test_the_output_of_an_earlier_run_is_replaced_on_request_only(self, tmp_path, into):
        run(lambda n: {"n": n}, range(1000), into=tmp_path / into, part_size=2000, chunk=100)
        with pytest.raises(
            errors.ChangedError, match=r"size 1000 then, 1 now\): run the job with fresh=True \(--fresh\) to make"
        ):
            run(lambda n: {"n": n}, [1], into=tmp_path / into)
        assert run(lambda n: {"n": n}, [1], into=tmp_path / into, fresh=True).values == [{"n": 1}]


class TestPlan:
    def test_explain_tells_how_calls_wait(self):
        async def later(n):
            return n

        def told(fn, **options):
            plan = bf.Job(fn, bf.records([1]), executor=SERIAL, **options).plan()
            return plan.explain().splitlines()[1].partition("once for each ")[2]

        assert told(len) == "record"
        assert told(later) == "record, 100 at once in each worker"
        assert (
            told(len, concurrency=8, rate="90/min")
            == "record, 8 at once in each worker, at most 1.5 calls/s in all"
        )
        assert told(len, rate="50/s burst 10") == "record, at most 50 calls/s burst 10 in all"

    def test_explain_tells_input_chunks_and_output_and_runs_nothing(self, tmp_path):
        for name in ("a.txt", "b.txt.gz"):
            (tmp_path / name).write_bytes(b"x\n" * 500)
        job = bf.Job(fn=len, source=bf.read_text(tmp_path), into=f"{tmp_path}/out/", executor=SERIAL)
        plan = job.plan()
        assert plan.explain().splitlines() == [
            "input     text: 2 files, 2 kB",
            f"not cut   1 compressed file; the largest is {tmp_path}/b.txt.gz (1 kB): each is one chunk, "
            "so split it or store it uncompressed if it dominates",
            "function  builtins.len, once for each record",
            "chunks    sized while running, about half a second each",
            f"output    {tmp_path}/out (parquet, parts of about 128 MB)",
        ]
        assert not (tmp_path / "out").exists()

    def test_fixed_chunks_are_counted(self):
        plan = bf.Job(fn=len, source=bf.records(range(100)), chunk=30).plan()
        assert "chunks    30 records each, about 4 of them" in plan.explain()

    def test_a_generator_is_not_touched(self):
        def source():
            raise AssertionError
            yield

        assert "unknown, read as it comes" in bf.Job(fn=len, source=bf.records(source())).plan().explain()


class TestReport:
    def test_rows_by_source_and_slowest_chunks(self, tmp_path):
        (tmp_path / "a.txt").write_text("1\nx\n3\n")
        (tmp_path / "b.txt").write_text("4\n")
        report = bf.map_records(int, bf.read_text(tmp_path), executor=SERIAL).report
        counts = {Path(uri).name: (c.rows_in, c.rows_out, c.failed) for uri, c in report.sources.items()}
        assert counts == {"a.txt": (3, 2, 1), "b.txt": (1, 1, 0)}
        assert (report.rows_in, report.rows_out, report.failed, report.complete) == (4, 3, 1, True)
        assert report.slowest[0].seconds >= report.slowest[-1].seconds
        assert 0 < sum(report.busy.values()) <= 1
        assert report.bytes_read == 8
        json.dumps(report.as_dict())
