"""Short chunks of a fixed size travel together: fewer messages, and everything else as if each came alone."""

import os
import signal
import time

import pytest
from seen import seen

import batchflow as bf
from batchflow.jobs.work_queue import SHORT_TASKS

MANY = 400


@pytest.fixture
def sizes(remote, monkeypatch):
    """Return how many pieces of work were sent together, each time there were several."""
    seen = []
    send = remote.submit_all
    monkeypatch.setattr(remote, "submit_all", lambda job, works: seen.append(len(works)) or send(job, works))
    return seen


def run(fn, remote, **options):
    return bf.map_records(fn, bf.records(range(MANY)), executor=remote, chunk=1, **options)


def failed(result):
    return [(row["record"], row["phase"], row["attempts"]) for row in result.errors.to_pylist()]


def test_rows_errors_and_counts_are_those_of_single_chunks(remote, sizes):
    result = run(lambda n: n // (n % 7), remote)
    assert seen(result).values == [n // (n % 7) for n in range(MANY) if n % 7]
    assert failed(result) == [(n + 1, "call", 1) for n in range(0, MANY, 7)]
    assert (result.report.chunks, result.report.rows_in) == (MANY, MANY)
    assert max(sizes) > 1


def test_chunks_that_are_not_fixed_go_one_by_one(remote, sizes):
    assert bf.map_records(abs, bf.records(range(MANY)), executor=remote).values == list(range(MANY))
    assert sizes == []


def test_few_go_one_by_one_so_that_each_is_told_as_soon_as_it_is_done(remote, sizes):
    assert bf.map_records(abs, bf.records(range(SHORT_TASKS)), executor=remote, chunk=1).values == list(
        range(SHORT_TASKS)
    )
    assert sizes == []


def test_long_ones_go_one_by_one(remote, sizes):
    """One of forty is long, and no sixty-four in a row are short."""
    run(lambda n: time.sleep(0.03) if n % 40 == 39 else n, remote, limits=bf.Resources(cpus=1))
    assert sizes == []


def test_one_that_ends_its_worker_costs_itself_only(remote, sizes):
    def fatal(n):
        if n == 300:
            os.kill(os.getpid(), signal.SIGKILL)
        return n

    result = run(fatal, remote)
    assert seen(result).values == [n for n in range(MANY) if n != 300]
    assert [(record, phase) for record, phase, _ in failed(result)] == [(301, "worker")]
    assert max(sizes) > 1


class Unpicklable:
    def __reduce__(self):
        raise TypeError("not this one")


def test_a_value_that_cannot_travel_costs_itself_only(remote, sizes):
    result = run(lambda n: Unpicklable() if n == 300 else n, remote)
    assert seen(result).values == [n for n in range(MANY) if n != 300]
    assert [(record, phase) for record, phase, _ in failed(result)] == [(301, "convert")]
    assert max(sizes) > 1


def test_large_values_come_back_in_their_places(remote, sizes):
    result = run(lambda n: bytes(300_000) if n % 50 == 49 else n, remote)
    assert [value for value in result.values if isinstance(value, int)] == [n for n in range(MANY) if n % 50 != 49]
    assert [at for at, value in enumerate(result.values) if value == bytes(300_000)] == list(range(49, MANY, 50))
    assert max(sizes) > 1


def test_what_is_printed_is_told_of_its_chunk(remote, sizes, capsys):
    run(lambda n: print("seen", n) if n % 100 == 0 else None, remote)
    assert sorted(capsys.readouterr().err.splitlines()) == [
        f"[records {n}:{n + 1}] seen {n}" for n in range(0, MANY, 100)
    ]
    assert max(sizes) > 1


@pytest.mark.parametrize("limit", [{"timeout": 30}, {"per_task": bf.Resources(memory="1GB")}])
def test_where_a_task_has_a_limit_each_goes_alone(remote, monkeypatch, limit):
    seen = []
    send = remote.submit
    monkeypatch.setattr(remote, "submit", lambda job, work: seen.append(work.key) or send(job, work))
    assert run(abs, remote, **limit).values == list(range(MANY))
    assert len(seen) == MANY
