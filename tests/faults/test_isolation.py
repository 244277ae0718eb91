"""Records that hang or kill their worker: found at once, as the worker knows which one it was at."""

import os
import signal
import threading

import pytest

import batchflow as bf
from batchflow.core.chunks import Chunk, InputFile, Span
from batchflow.events import TaskEnded, TaskStarted
from batchflow.jobs.isolation import records_name
from batchflow.worker.position import STRETCH, PositionCells

LIMIT = 1.0


def wait(seconds=None):
    threading.Event().wait(seconds)


def run(fn, source, executor, **options):
    heard = []
    job = bf.Job(fn=fn, source=source, executor=executor, listeners=[heard.append], **options)
    return job.run(), heard


def told(result):
    columns = ["record", "payload", "phase", "attempts"]
    return [tuple(row.values()) for row in result.errors.select(columns).to_pylist()]


def broken(heard):
    """Return the tasks that ran and broke off."""
    started = {event[:2] for event in heard if isinstance(event, TaskStarted)}
    return [event for event in heard if isinstance(event, TaskEnded) and event.died and event[:2] in started]


def test_record_that_hangs_costs_one_limit(remote):
    result, heard = run(
        lambda n: wait() if n == 700 else n, bf.records(range(1000)), remote, chunk=1000, timeout=LIMIT
    )
    assert result.values == [n for n in range(1000) if n != 700]
    assert told(result) == [(701, "700", "timeout", 1)]
    assert len(broken(heard)) == 1


def test_record_that_hangs_in_c_code_costs_one_limit(remote):
    def fn(n):
        if n == 700:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})  # as code that hears no signal
            wait()
        return n

    result, heard = run(fn, bf.records(range(1000)), remote, chunk=1000, timeout=LIMIT)
    assert result.values == [n for n in range(1000) if n != 700]
    assert told(result) == [(701, "700", "timeout", 1)]
    assert len(broken(heard)) == 1


@pytest.mark.cluster
def test_position_that_no_node_tells_is_found_by_halving(warm, monkeypatch):
    monkeypatch.setattr("batchflow.executors.ray.executor._SEARCHED", 0)
    result, heard = run(lambda n: os._exit(3) if n == 3 else n, bf.records(range(8)), warm("ray"), chunk=8)
    assert result.values == [n for n in range(8) if n != 3]
    assert len(broken(heard)) > 3


def test_record_of_a_file_that_hangs_costs_one_limit(remote, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("n\n" + "".join(f"{n}\n\n" for n in range(300)))  # blank lines are numbered, too
    source = bf.read_csv(path)
    result, heard = run(
        lambda row: wait() if row["n"] == 200 else row["n"], source, remote, chunk="1MB", timeout=LIMIT
    )
    assert result.values == [n for n in range(300) if n != 200]
    assert told(result) == [(401, "{'n': 200}", "timeout", 1)]
    assert len(broken(heard)) == 1


def test_generator_that_hangs_costs_one_limit(remote):
    def fn(n):
        yield n
        if n == 70:
            wait()

    result, heard = run(fn, bf.records(range(100)), remote, chunk=100, timeout=LIMIT)
    assert result.values == [n for n in range(100) if n != 70]
    assert told(result) == [(71, "70", "timeout", 1)]
    assert len(broken(heard)) == 1


def test_hang_in_a_further_attempt_costs_one_limit(remote, tmp_path):
    def fn(n):
        if n == 5 and (tmp_path / "tried").exists():
            wait()
        if n == 5:
            (tmp_path / "tried").touch()
            raise ValueError
        return n

    retry = bf.Retry(attempts=2, on=ValueError, backoff=0)
    result, heard = run(fn, bf.records(range(8)), remote, chunk=8, timeout=LIMIT, retry=retry)
    assert result.values == [0, 1, 2, 3, 4, 6, 7]
    assert told(result) == [(6, "5", "timeout", 1)]
    assert len(broken(heard)) == 1


def test_records_that_take_the_limit_together_all_succeed(remote):
    result, _ = run(lambda n: wait(LIMIT / 4) or n, bf.records(range(8)), remote, chunk=8, timeout=LIMIT)
    assert result.values == list(range(8))
    assert result.errors.num_rows == 0


def test_slow_record_keeps_all_of_its_limit(remote):
    """Each of two takes 0.7 of the limit: the second one is running when that is over."""
    slow = LIMIT * 0.7
    result, _ = run(
        lambda n: wait(slow if n in (3, 4) else 0) or n, bf.records(range(9)), remote, chunk=9, timeout=LIMIT
    )
    assert result.values == list(range(9))
    assert result.errors.num_rows == 0


@pytest.mark.parametrize("bad", [0, 5, 6])
def test_file_whose_record_kills_its_worker_costs_itself(remote, tmp_path, bad):
    for number in range(7):
        (tmp_path / f"{number}.txt").write_text(f"{number}\nx\n")

    def fn(line):
        if line == str(bad):
            os._exit(3)
        return line

    result, heard = run(fn, bf.read_text(tmp_path), remote, chunk="1MB")
    assert result.values == [line for n in range(7) for line in (str(n), "x") if line != str(bad)]
    assert [row[:3] for row in told(result)] == [(1, str(bad), "worker")]
    assert len(broken(heard)) == 3  # all files, the one at fault, its record


@pytest.mark.parametrize("end", [lambda: os._exit(3), lambda: os.kill(os.getpid(), signal.SIGSEGV)])
def test_record_far_behind_that_kills_its_worker_takes_three(remote, end):
    bad = 5 * STRETCH + 7
    result, heard = run(lambda n: end() if n == bad else n, bf.records(range(2000)), remote, chunk=2000)
    assert result.values == [n for n in range(2000) if n != bad]
    assert told(result) == [(bad + 1, str(bad), "worker", 3)]
    assert len(broken(heard)) == 3


def test_started_tasks_name_what_is_isolated(warm):
    _, heard = run(lambda n: os._exit(3) if n == 30 else n, bf.records(range(40)), warm("processes"), chunk=40)
    named = [event.isolating for event in heard if isinstance(event, TaskStarted)]
    assert named[0] == ""
    assert "record 31 of <list>" in named or "record 31 of records" in named


def test_records_name_says_what_is_known():
    span = Span(InputFile("in/a.csv", 100), 0, 100)
    later = span._replace(start=50)
    assert records_name(Chunk((span,), 9, 16, 1, 40)) == "record 17 of a.csv"
    assert records_name(Chunk((span,), 9, 16, 5, 40)) == "records from 17 of a.csv"
    assert records_name(Chunk((later,), 9, 16, 1, 40)) == "a record of a.csv after byte 50"
    assert records_name(Chunk((span, later), 9)) == "2 files from a.csv"
    assert records_name(Chunk((Span(InputFile("records", 100), 7, 8),), 1)) == "record 8 of records"


class TestPositionCells:
    @pytest.mark.parametrize("timed", [False, True])
    def test_record_taken_last_is_known(self, timed):
        cells, numbers = PositionCells(), range(10, 1010)
        for taken, _ in enumerate(cells.follow(range(1000), 2, numbers, timed=timed)):
            position = cells.read()
            first = numbers[taken if timed else taken - taken % STRETCH]
            assert position[:2] == (2, first)
            assert first + position.records > numbers[taken]

    def test_records_between_blank_lines_are_known(self):
        cells, numbers = PositionCells(), [0, 2, 3, 9]
        seen = [(record, cells.read().first) for record in cells.follow("abcd", 0, numbers, timed=True)]
        assert seen == [("a", 0), ("b", 2), ("c", 3), ("d", 9)]

    def test_cleared_position_is_none(self):
        cells = PositionCells()
        cells.note(0, 5)
        cells.clear()
        assert cells.read() is None

    def test_only_a_record_that_took_most_of_the_limit_has_some_left(self):
        cells = PositionCells()
        cells.note(0, 5)
        assert cells.seconds_left(1e6) == 0.0
        assert cells.seconds_left(0.0) == 0.0
