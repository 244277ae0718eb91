"""What is kept of records that fail: tracebacks as Python has them, few and short."""

import json
import traceback

import pytest

import batchflow as bf
from batchflow.core.chunks import Chunk, InputFile, Span
from batchflow.core.outcomes import MESSAGE_LIMIT, TRACEBACK_LIMIT, Failure, Failures, Stats
from batchflow.core.work import Task
from batchflow.jobs import fault_policy as losses
from batchflow.reporting.failure_groups import FailureGroups
from batchflow.worker import failures


class PlainError(Exception):
    """Says nothing."""


def fail():
    raise ValueError("bad")


def wrap():
    try:
        fail()
    except ValueError as error:
        raise PlainError("two\nlines") from error


def fail_in_except():
    try:
        fail()
    except ValueError:
        return {}["key"]


def hide():
    try:
        fail()
    except ValueError:
        raise KeyError("q") from None


def recurse():
    return recurse()


def say_nothing():
    raise PlainError


def note():
    error = ValueError("bad")
    error.add_note("by hand")
    raise error


def misname():
    return json.no_such_name


def group():
    raise ExceptionGroup("some", [ValueError("one"), KeyError("two")])


def raised(fn):
    try:
        fn()
    except Exception as error:
        return error


RAISING = [fail, wrap, fail_in_except, hide, recurse, say_nothing, note, misname, group]


@pytest.mark.parametrize("fn", RAISING, ids=lambda fn: fn.__name__)
def test_traceback_of_user_frames_is_that_of_python(fn):
    for _ in range(2):  # the second one comes from the cache
        error = raised(fn)
        expected = traceback.TracebackException.from_exception(error, limit=-50)
        assert failures.user_traceback(error) == "".join(expected.format())


def test_traceback_of_equal_code_names_each_function():
    made = []
    for name in "ab":
        space = {}
        exec(compile("def fn(_):\n    raise ValueError\n", f"{name}.py", "exec"), space)
        try:
            space["fn"](0)
        except ValueError as error:
            made.append(failures.user_traceback(error))
    assert ["a.py" in made[0], "b.py" in made[1]] == [True, True]


def test_long_texts_are_cut(executor):
    def fn(_):
        raise ValueError("x" * 100_000)

    [row] = bf.map_records(fn, bf.records([1]), executor=executor).errors.to_pylist()
    assert row["message"] == "x" * (MESSAGE_LIMIT - 1) + "…"
    assert len(row["traceback"]) == TRACEBACK_LIMIT
    assert row["traceback"].startswith("Traceback")


def test_tracebacks_beyond_a_limit_are_dropped(executor, monkeypatch):
    monkeypatch.setattr(losses, "TRACEBACKS", 5)

    def fn(n):
        if n % 4 == 0:
            raise KeyError(n)
        raise ValueError(f"no {n}")

    errors = bf.map_records(fn, bf.records(range(80)), executor=executor, chunk=7).errors.to_pylist()
    assert [row["record"] for row in errors] == list(range(1, 81))
    kept = [row for row in errors if row["traceback"]]
    assert sorted(row["error_type"] for row in kept) == ["KeyError"] * 5 + ["ValueError"] * 5


def test_worker_formats_no_more_tracebacks_than_kept(monkeypatch):
    monkeypatch.setattr(failures, "TRACEBACKS", 3)
    count = failures.TracebackCount()
    texts = []
    for _ in range(5):
        try:
            fail()
        except ValueError as error:
            texts.append(count.of(error))
    assert [bool(text) for text in texts] == [True] * 3 + [False] * 2


def failure(message, trace):
    return Failure("a.csv", 0, 1, 1, "x", "call", "ValueError", message, trace)


def test_failures_without_traceback_join_their_group():
    text = (
        'Traceback (most recent call last):\n  File "/home/steps.py", line 3, in fn\n    raise\nValueError: no\n'
    )
    groups = FailureGroups()
    groups.add_failures([failure(f"no {n}", text if n < 10 else "") for n in range(500)])
    groups.add_failures([failure("no 1", "")] * 500)
    [group] = groups.commonest()
    assert (group.count, group.where, len(group.examples)) == (1000, "steps.py:3 in fn", 3)


def test_scheduler_adds_attempts_and_worker():
    task = Task((0, 0), Chunk((Span(InputFile("a.csv", 10), 0, 10),), 10), attempt=3)
    one, two = losses.Tracebacks().add(
        [failure("no", ""), failure("no", "")._replace(worker="b", attempts=2)], task, Stats("a")
    )
    assert [(bad.attempts, bad.worker) for bad in (one, two)] == [(3, "a"), (4, "b")]


def test_ledger_keeps_texts_that_utf8_cannot(tmp_path):
    def fn(_):
        raise ValueError("half \ud83d of a pair")

    source = bf.records(range(200))
    bf.map_records(fn, source, into=tmp_path / "out", executor=bf.Serial(), chunk=200)
    again = bf.map_records(fn, source, into=tmp_path / "out", executor=bf.Serial(), chunk=200)
    assert set(again.errors["message"].to_pylist()) == {"half \\ud83d of a pair"}
    assert again.errors["record"].to_pylist() == list(range(1, 201))


def test_payload_of_parquet_row_is_as_it_was_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"n": range(200)}), tmp_path / "a.parquet")

    def fn(row):
        row["seen"] = True
        raise ValueError

    errors = bf.map_records(fn, bf.read_parquet(tmp_path / "a.parquet"), executor=bf.Serial()).errors
    assert errors["payload"].to_pylist() == [str({"n": n}) for n in range(200)]


def test_failures_by_column_are_a_sequence_of_failures():
    rows = tuple(failure(f"no {n}", "") for n in range(5))
    columns = Failures.of(rows)
    assert (len(columns), columns, tuple(columns), columns[1], columns[-2:]) == (5, rows, rows, rows[1], rows[3:])
    assert columns.replace(message=["x"] * 5)[0] == rows[0]._replace(message="x")
    assert (Failures.of(columns) is columns, Failures.of(()), bool(Failures.of(()))) == (True, (), False)


def test_ledger_of_many_failures_is_compressed_and_read_as_it_was(tmp_path):
    def fn(number):
        raise ValueError("no price for item " + str(number))

    def run():
        return bf.map_records(fn, source, into=tmp_path / "out", executor=bf.Serial(), chunk=1000, max_errors=9999)

    source = bf.records(range(9000))
    errors = run().errors
    assert errors["message"].to_pylist() == [f"no price for item {n}" for n in range(9000)]
    assert errors["record"].to_pylist() == list(range(1, 9001))
    assert (tmp_path / ".out_batchflow" / "ledger.log").stat().st_size < 30 * 9000
    assert run().errors == errors


@pytest.mark.parametrize("end", ["\n", ""])
@pytest.mark.parametrize("cell", ["plain", '"two\nlines"', "\u00e4"])
def test_failed_rows_of_csv_are_located(tmp_path, cell, end):
    lines = [f"{n},{cell}\n" for n in range(5000)]
    (tmp_path / "a.csv").write_text("n,cell\n" + "".join(lines) + f"9,last{end}", encoding="utf-8")

    def fn(row):
        raise KeyError(row["n"])

    errors = bf.map_records(fn, bf.read_csv(tmp_path / "a.csv"), executor=bf.Serial(), max_errors=9999).errors
    data = (tmp_path / "a.csv").read_bytes()
    rows = [
        data[start:stop]
        for start, stop in zip(errors["start"].to_pylist(), errors["stop"].to_pylist(), strict=True)
    ]
    assert rows == [*(line.encode() for line in lines), f"9,last{end}".encode()]
