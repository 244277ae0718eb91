"""Functions of batches: whose fault it is when a batch fails."""

import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import batchflow as bf
from batchflow.events import TaskEnded
from batchflow.plan import JobSpec
from batchflow.planning import make_plan
from batchflow.running import Run
from batchflow.worker.batches import FEW

TOLD = ["source", "record", "payload", "phase", "error_type", "message"]
NUMBERS = st.sets(st.integers(0, 199), max_size=12)


def run(fn, source, tasks, **options):
    run_ = Run(make_plan(JobSpec(fn, source, per="batch", **options)), bf.Serial(), [tasks.append])
    return run_.drive(run_.result())


def refuse(table):
    raise ValueError("nothing is right")


def test_a_mistake_that_every_record_meets_takes_no_task_for_each(monkeypatch):
    events = []
    result = run(refuse, bf.records(list(range(16 * FEW))), events, chunk=16 * FEW)
    assert result.errors["payload"].to_pylist() == [str(n) for n in range(16 * FEW)]
    assert set(result.errors["attempts"].to_pylist()) == {4 + 1 + 6}  # 1,024, 512 ... 64 by the scheduler, 32 ... 1
    assert len([event for event in events if isinstance(event, TaskEnded)]) == 1 + 2 + 4 + 8 + 16
    assert result.report.rows_in == result.report.failed == 16 * FEW


@given(st.integers(0, 200), NUMBERS, NUMBERS, st.sampled_from(["20B", "200B", "2KB"]), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_errors_are_those_of_a_function_of_records(tmp_path, size, unreadable, bad, chunk, files):
    shutil.rmtree(tmp_path, ignore_errors=True)
    tmp_path.mkdir()
    lines = ["{" if n in unreadable else f'{{"n": {n}}}' for n in range(size)]
    for name, part in (("a", lines[: size // 3]), ("b", lines[size // 3 :])) if files else (("a", lines),):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in part))

    def one(record):
        if record["n"] in bad:
            raise ValueError("bad number")
        return record

    def many(table):
        if bad.intersection(table["n"].to_pylist()):
            raise ValueError("bad number")
        return table

    source, options = bf.read_json(tmp_path), {"executor": "serial", "chunk": chunk}
    if size == 0:
        return
    singly = bf.map_records(one, source, **options)
    result = bf.map_batches(many, source, **options)
    assert result.table.to_pylist() == singly.table.to_pylist()
    assert result.errors.select(TOLD).to_pylist() == singly.errors.select(TOLD).to_pylist()


def test_what_another_try_may_help_is_tried_as_a_whole_first():
    calls = []

    def fn(table):
        values = table["value"].to_pylist()
        calls.append(values)
        if values == [0, 1, 2, 3]:
            raise ValueError("a mistake")
        if 3 in values and len(calls) < 8:
            raise OSError("a bad line")
        return table

    result = run(fn, bf.records(range(4)), [], chunk=4, retry=bf.Retry(attempts=2, backoff=0))
    assert calls == [[0, 1, 2, 3], [0, 1], [2, 3]] * 2 + [[2], [3]]
    assert result.values == [0, 1, 2, 3]


@pytest.mark.parametrize("isolate", [False, True])
def test_nothing_of_a_batch_is_kept_where_it_is_one(isolate):
    def fn(table):
        if 70 in table["value"].to_pylist():
            raise ValueError("bad")
        return table

    result = run(fn, bf.records(list(range(100))), [], chunk=50, isolate=isolate)
    good = [n for n in range(100) if n != 70] if isolate else list(range(50))
    assert result.values == good
    assert result.errors["record"].to_pylist() == ([71] if isolate else [None])


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["b", "c"]])
@pytest.mark.parametrize("gone", ["a", "b", "c"])
def test_no_record_of_a_halved_chunk_is_lost_or_doubled_where_a_file_goes_away(tmp_path, names, gone):
    """As records are found by counting them through all files of the chunk, there is no telling where others are."""
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("".join(f"{name}{n}\n" for n in range(FEW)))

    def fn(table):
        if table.num_rows > FEW:
            (tmp_path / f"{gone}.txt").unlink(missing_ok=True)
            raise ValueError("too many")
        return table

    inputs = [tmp_path / f"{name}.txt" for name in names]
    result = run(fn, bf.read_text(inputs), [], chunk="1MB")
    every = [f"{name}{n}" for name in names for n in range(FEW)]
    if gone not in names or len(names) == 1:
        assert (result.values, result.errors.num_rows) == (every, 0)
        return
    assert result.values == [value for value in every if value in result.values]
    told = {(os.path.basename(row["source"])[0], row["phase"], row["error_type"]) for row in result.errors.to_pylist()}
    assert (gone, "read", "FileNotFoundError") in told
    assert {phase for _, phase, _ in told} == {"read"}
    assert {value[0] for value in every} - {value[0] for value in result.values} <= {name for name, *_ in told}
