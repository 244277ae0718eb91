"""Functions of batches: whose fault it is when a batch fails."""

import gc
import json
import math
import shutil
import time
import weakref
from datetime import date

import numpy as np
import pytest
from crash import proved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seen import seen

import batchflow as bf
from batchflow.events import TaskEnded
from batchflow.jobs.planner import make_plan
from batchflow.jobs.run import JobRun
from batchflow.plan import JobSpec
from batchflow.worker.batch_task import FEW

TOLD = ["source", "record", "payload", "phase", "error_type", "message"]
NUMBERS = st.sets(st.integers(0, 199), max_size=12)


def run(fn, source, tasks, **options):
    run_ = JobRun(make_plan(JobSpec(fn, source, per="batch", **options)), bf.Serial(), [tasks.append])
    return run_.drive(run_.result())


def refuse(table):
    raise ValueError("nothing is right")


@pytest.mark.parametrize("count", [2, FEW, FEW + 1, 1000])
@pytest.mark.parametrize("bad", [{0}, {1}, {0, 1}, set(range(0, 1000, 9))], ids=len)
def test_failing_batch_is_called_at_most_twice_per_halving(count, bad):
    """A call may have a cost of its own: no record is called alone unless it fails or one of its neighbours."""
    calls = []

    def fn(table):
        calls.append(table["value"].to_pylist())
        if bad & set(calls[-1]):
            raise ValueError
        return table

    run(fn, bf.records(list(range(count))), [], chunk=count, max_errors=1.0)
    failing = len([n for n in bad if n < count])
    assert len(calls) <= 2 * failing * math.ceil(math.log2(count)) + 1
    assert all(bad & set(range(call[0] - 2, call[0] + 3)) for call in calls if len(call) == 1)


def test_batch_that_succeeds_is_called_once():
    calls = []
    run(calls.append, bf.records(list(range(1000))), [], chunk=1000)
    assert len(calls) == 1


def test_a_mistake_that_every_record_meets_takes_no_task_for_each(monkeypatch):
    events = []
    result = run(refuse, bf.records(list(range(16 * FEW))), events, chunk=16 * FEW, max_errors=1.0)
    assert result.errors["payload"].to_pylist() == [str(n) for n in range(16 * FEW)]
    assert set(result.errors["attempts"].to_pylist()) == {
        4 + 1 + 6
    }  # 1,024, 512 ... 64 by the scheduler, 32 ... 1
    assert len([event for event in events if isinstance(event, TaskEnded)]) == 1 + 2 + 4 + 8 + 16
    assert result.report.rows_in == result.report.failed == 16 * FEW


@given(st.integers(1, 200), NUMBERS, NUMBERS, st.sampled_from(["20B", "200B", "2KB"]), st.booleans())
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
    singly = bf.map_records(one, source, **options)
    result = bf.map_batches(many, source, **options)
    assert seen(result).table.to_pylist() == seen(singly).table.to_pylist()
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
    assert seen(result).values == good
    assert result.errors["record"].to_pylist() == ([71] if isolate else [None])


@pytest.mark.parametrize("gone", ["a", "b", "c"])
@pytest.mark.parametrize("comes_back", [False, True])
def test_no_record_is_lost_or_doubled_where_a_file_comes_and_goes(tmp_path, gone, comes_back):
    """While a chunk of three files is halved, one of them cannot be read any more, or can be again."""
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("".join(f"{name}{n}\n" for n in range(2 * FEW)))
    here, there, moved = tmp_path / f"{gone}.txt", tmp_path / "kept", tmp_path / "moved"
    into = tmp_path / "out.jsonl"

    def fn(table):
        if not moved.exists():
            moved.touch()
            there.rename(here) if comes_back else here.rename(there)
            raise ValueError("once")
        return table.rename_columns(["line"])

    job = bf.Job(fn, bf.read_text(tmp_path / "*.txt"), per="batch", into=into, chunk="1MB", executor="serial")
    every = [f"{name}{n}" for name in "abc" for n in range(2 * FEW)]
    plan = make_plan(job)
    if comes_back:
        here.rename(there)
    run = JobRun(plan, bf.Serial(), [])
    result = run.drive(run.result())
    left = every if comes_back else [line for line in every if line[0] != gone]
    assert seen(result).table["line"].to_pylist() == left
    told = result.errors.select(["source", "record", "phase", "error_type"]).to_pylist()
    missing = {"source": str(here), "record": 1, "phase": "read", "error_type": "FileNotFoundError"}
    assert told == ([] if comes_back else [missing])
    if not comes_back:
        there.rename(here)
        assert job.retry_failed().table["line"].to_pylist() == every
    assert proved(into) == []


def test_rows_of_a_file_that_could_not_be_read_come_where_it_stands(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("".join(f"{name}{n}\n" for n in range(20)))
    there, mended = tmp_path / "kept", tmp_path / "mended"

    def fn(table):
        if not mended.exists() and {"a3", "c7"}.intersection(table["value"].to_pylist()):
            raise ValueError("bad")
        return table.rename_columns(["line"])

    job = bf.Job(fn, bf.read_text(tmp_path / "*.txt"), per="batch", into=tmp_path / "out/", executor="serial")
    plan = make_plan(job)
    (tmp_path / "b.txt").rename(there)
    run = JobRun(plan, bf.Serial(), [])
    assert run.drive(run.result()).errors["record"].to_pylist() == [4, 1, 8]
    there.rename(tmp_path / "b.txt")
    assert job.retry_failed().errors["payload"].to_pylist() == ["a3", "c7"]
    mended.touch()
    result = job.retry_failed()
    assert result.table["line"].to_pylist() == [f"{name}{n}" for name in "abc" for n in range(20)]
    assert proved(tmp_path / "out") == []


def always(table):
    time.sleep(0.02)
    raise ValueError("nothing is right")


def test_time_and_rate_of_a_task_are_not_used_up_by_looking_for_the_guilty(warm):
    result = bf.map_batches(
        always, bf.records(list(range(128))), executor=warm("processes"), chunk=64, timeout=0.5
    )
    assert result.errors["error_type"].to_pylist() == ["ValueError"] * 128
    assert result.errors["record"].to_pylist() == list(range(1, 129))
    events = []
    calm = run(refuse, bf.records([1, 2, 3]), events, chunk=3, rate="1000/s")
    assert calm.errors["record"].to_pylist() == [1, 2, 3]
    assert len([event for event in events if isinstance(event, TaskEnded)]) == 5  # as each call waits for its turn


def test_what_a_function_held_is_let_go_while_the_guilty_are_looked_for():
    held = weakref.WeakSet()

    class Large:
        pass

    def fn(table):
        gc.collect()
        assert len(held) == 0
        large = Large()
        held.add(large)
        if 3 in table["value"].to_pylist():
            raise ValueError("bad")
        return table

    result = run(fn, bf.records(list(range(8))), [], chunk=8)
    assert (seen(result).values, result.errors["record"].to_pylist()) == ([0, 1, 2, 4, 5, 6, 7], [4])


def test_a_combine_that_raises_is_named():
    def total(table):
        return table.group_by("region").sum()

    result = run(lambda table: table, bf.records([{"n": 1}, {"n": 2}]), [], chunk=2, combine=total)
    assert [row["message"].partition(":")[0] for row in result.errors.to_pylist()] == ["combine= failed"] * 2


def test_batches_of_text_with_broken_lines_are_as_large_as_blocks_that_are_read(tmp_path):
    """A block with failures goes by itself; decoded by 32 kB, for functions of records, it would be an eighth."""
    path = tmp_path / "lines.jsonl"
    lines = ["{" if number % 200 == 0 else json.dumps({"n": number, "pad": "x" * 80}) for number in range(20_000)]
    path.write_text("\n".join(lines))
    sizes = []

    def keep(table):
        sizes.append(table.num_rows)
        return table

    result = bf.map_batches(keep, bf.read_json(path), executor="serial", chunk="8MB", progress=False)
    assert seen(result).table["n"].to_pylist() == [number for number in range(20_000) if number % 200]
    assert result.errors["record"].to_pylist() == [number + 1 for number in range(0, 20_000, 200)]
    assert min(sizes[:-1]) > 200_000 // 110


def test_batches_of_dates_of_numpy_are_dates():
    days = np.array(["2020-01-01", "2020-01-02"], "M8[D]")
    result = bf.map_batches(lambda table: table, bf.records(days), executor="serial", progress=False)
    assert result.values == [date(2020, 1, 1), date(2020, 1, 2)]
