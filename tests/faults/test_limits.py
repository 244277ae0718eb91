"""Tasks that take too long or too much memory: stopped where they run, the guilty record alone blamed."""

import os
import re
import signal
import threading

import pytest
from seen import seen

import batchflow as bf

MEMORY = bf.Resources(memory="200MB")


def run(fn, data, executor, **options):
    return bf.map_records(fn, bf.records(data), executor=executor, **options)


def told(result):
    columns = ["record", "payload", "phase", "error_type"]
    return [tuple(row.values()) for row in result.errors.select(columns).to_pylist()]


def wait_for_ever(_):
    threading.Event().wait()


def loop_for_ever(_):
    while True:
        pass


def backtrack(_):
    re.match(r"(a+)+$", "a" * 40 + "b")


def count_in_c(_):
    sum(range(10**15))  # holds the interpreter's lock, and hears no signal that Python handles


def swallow(_):
    while True:
        try:
            threading.Event().wait()
        except BaseException:
            continue


HANGS = [wait_for_ever, loop_for_ever, backtrack, count_in_c, swallow]


@pytest.mark.parametrize("hang", HANGS, ids=lambda hang: hang.__name__)
def test_a_record_that_hangs_costs_itself_only(remote, hang):
    result = run(lambda n: hang(n) if n == 2 else n, range(6), remote, chunk=2, timeout=0.3)
    assert seen(result).values == [0, 1, 3, 4, 5]
    assert told(result) == [(3, "2", "timeout", "TimeoutError")]
    [row] = result.errors.to_pylist()
    assert row["message"] == "the task took longer than timeout=0.3 seconds"
    assert row["attempts"] == 1


class HangsInReduce:
    def __reduce__(self):
        wait_for_ever(self)


class HangsInGetState:
    def __getstate__(self):
        wait_for_ever(self)


class HangsInItems(dict):
    def items(self):
        wait_for_ever(self)


class HangsInIter(list):
    def __iter__(self):
        wait_for_ever(self)


VALUES = [HangsInReduce, HangsInGetState, lambda: HangsInItems(a=1), lambda: HangsInIter([1])]


@pytest.mark.parametrize("value", VALUES, ids=["reduce", "getstate", "items", "iter"])
def test_value_that_hangs_when_it_is_read_costs_its_record(remote, value):
    result = run(lambda n: value() if n == 2 else n, range(4), remote, chunk=4, timeout=0.3)
    assert seen(result).values == [0, 1, 3]
    assert told(result) == [(3, "2", "timeout", "TimeoutError")]


def stop(_):
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.parametrize("chunk", [1, 8])
def test_record_that_stops_its_worker_is_timed_out(warm, chunk):
    """The clock of a stopped process stops with it. The driver finds the record where the worker noted it."""
    result = run(lambda n: stop(n) if n == 5 else n, range(8), warm("processes"), chunk=chunk, timeout=0.3)
    assert seen(result).values == [n for n in range(8) if n != 5]
    assert told(result) == [(6, "5", "timeout", "TimeoutError")]
    assert result.errors["attempts"].to_pylist() == [1]


def test_setup_that_stops_its_worker_is_one_error_of_the_job(warm):
    with pytest.raises(bf.errors.StoppedError, match=r"^stopped: setup=.* failed: TimeoutError"):
        run(lambda n, _: n, range(2), warm("processes"), setup=lambda: stop(0), chunk=2, timeout=0.3)


def test_where_it_hung_is_shown(remote):
    [row] = run(wait_for_ever, [1], remote, timeout=0.2).errors.to_pylist()
    assert "in wait_for_ever" in row["traceback"]
    assert "threading.Event().wait()" in row["traceback"]


def test_a_time_limit_counts_from_the_start_of_each_task(remote):
    """Sixteen tasks of 0.15 s take longer together, and the later ones wait longer than their limit."""
    result = run(lambda n: threading.Event().wait(0.15) or n, range(16), remote, chunk=1, timeout=1.0)
    assert result.values == list(range(16))
    assert result.errors.num_rows == 0


def test_setup_that_hangs_is_one_error_of_the_job(remote):
    why = r"^stopped: setup=.* failed: TimeoutError: the task took longer than timeout=0.2 seconds; fix it"
    with pytest.raises(bf.errors.StoppedError, match=why) as caught:
        run(lambda n, _: n, range(2), remote, setup=lambda: wait_for_ever(0), chunk=1, timeout=0.2)
    assert caught.value.errors.num_rows == 0
    assert "in wait_for_ever" in "".join(caught.value.__notes__)


def test_a_batch_that_hangs(remote):
    def fn(table):
        if 3 in table["value"].to_pylist():
            wait_for_ever(0)
        return table

    result = bf.map_batches(fn, bf.records(range(6)), executor=remote, chunk=4, timeout=1)
    assert seen(result).values == [0, 1, 2, 4, 5]
    assert told(result) == [(4, "3", "timeout", "TimeoutError")]


def test_time_outs_are_tried_again_on_request(remote, tmp_path):
    def fn(n):
        if n == 1 and not (tmp_path / "once").exists():
            (tmp_path / "once").touch()
            wait_for_ever(n)
        return n

    retry = bf.Retry(attempts=2, on=TimeoutError, backoff=0)
    result = run(fn, range(3), remote, chunk=1, timeout=0.3, retry=retry)
    assert result.values == [0, 1, 2]
    assert result.errors.num_rows == 0


def test_the_worker_goes_on_after_a_time_limit(remote):
    """And nothing of the limit is left in it: no alarm, no thread that ends it later."""
    assert run(lambda n: n, range(4), remote, chunk=1, timeout=0.1).values == [0, 1, 2, 3]
    assert run(lambda n: threading.Event().wait(1.5) or n, range(2), remote, chunk=1).values == [0, 1]


def grow(_):
    kept = []
    while True:
        kept.append(bytearray(1_000_000))


def grow_at_once(_):
    return len(b"x" * 2_000_000_000)


def grow_in_arrow(_):
    import numpy as np
    import pyarrow as pa

    return [pa.array(np.arange(1_000_000)) for _ in range(1000)]


@pytest.mark.parametrize("hog", [grow, grow_at_once, grow_in_arrow], ids=lambda hog: hog.__name__)
def test_a_record_that_takes_too_much_memory_costs_itself_only(remote, hog):
    result = run(lambda n: hog(n) if n == 5 else n, range(8), remote, chunk=4, per_task=MEMORY)
    assert seen(result).values == [0, 1, 2, 3, 4, 6, 7]
    assert told(result) == [(6, "5", "memory", "MemoryError")]
    [row] = result.errors.to_pylist()
    assert row["message"].startswith("the task took more than per_task memory=200 MB")
    assert f"in {hog.__name__}" in row["traceback"]
    assert result.report.peak_memory < 600_000_000


def test_too_many_records_for_the_memory_of_a_task_make_smaller_chunks(remote):
    """Each record fits, all of them together do not; no record is blamed."""
    result = run(lambda n: bytes([n]) * 20_000_000, range(16), remote, chunk=16, per_task=MEMORY)
    assert [(len(value), value[0]) for value in result.values] == [(20_000_000, n) for n in range(16)]
    assert result.errors.num_rows == 0
    assert result.report.retries >= 2


def test_a_function_that_deals_with_too_little_memory_may(remote):
    def careful(_):
        try:
            return len(bytearray(10**9))
        except MemoryError:
            return -1

    assert run(careful, range(2), remote, per_task=MEMORY).values == [-1, -1]


def test_memory_is_free_again_afterwards(remote):
    assert run(grow, [1], remote, per_task=MEMORY).errors.num_rows == 1
    assert run(lambda _: len(bytearray(500_000_000)), [1], remote).values == [500_000_000]


def test_other_workers_never_notice(remote):
    """Their process numbers stay the same, and they are killed for nobody."""
    pids = set(run(lambda _: os.getpid(), range(20), remote, chunk=1).values)
    result = run(lambda n: grow(n) if n == 0 else os.getpid(), range(20), remote, chunk=1, per_task=MEMORY)
    assert len(seen(result).values) == 19
    if remote.name == "processes":
        assert set(result.values) <= pids


def test_an_import_is_not_broken_off(tmp_path):
    """It would leave half a module behind, or a lock that no other import gets past; the limit comes right after."""
    begins = tmp_path / "begins"
    code = f"import time\nopen({str(begins)!r}, 'a').write('x')\ntime.sleep(0.6)\nvalue = 7\n"
    (tmp_path / "slow_to_import.py").write_text(code)

    def load(_, folder):
        import sys

        sys.path.append(folder)
        import slow_to_import

        threading.Event().wait()
        return slow_to_import.value

    def look(_):
        import slow_to_import

        return slow_to_import.value

    with bf.Processes(workers=1) as one:
        result = run(load, [1], one, args={"folder": str(tmp_path)}, timeout=0.3)
        assert told(result) == [(1, "1", "timeout", "TimeoutError")]
        assert run(look, [1], one).values == [7]
    assert begins.read_text() == "x"  # it is imported once, and stays


def test_what_a_function_makes_of_small_files_is_not_held_for_many_of_them(tmp_path):
    """Each file is a few bytes, and what comes of it 20 MB: converted one by one, written by 64 MB."""
    for number in range(30):
        (tmp_path / f"{number:02}.cfg").write_text("x")
    grown = bf.map_records(
        lambda file: {"made": bytes(20_000_000), "of": file.path[-6:-4]},
        bf.files(f"{tmp_path}/*.cfg"),
        executor=bf.Processes(1),
        into=tmp_path / "out.parquet",
        chunk=30,
    )
    assert grown.table["of"].to_pylist() == [f"{number:02}" for number in range(30)]
    assert grown.report.peak_memory < 500_000_000
