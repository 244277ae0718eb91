"""Calls that wait: those of the next chunks begin while the last ones of a chunk are waited for."""

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

import pytest

import batchflow as bf
from batchflow.events import TaskEnded

LIMIT = 0.5


def run(fn, data, executor, **options):
    options = {"source": bf.records(data), "executor": executor, "limits": bf.Resources(cpus=1), **options}
    return bf.Job(fn=fn, **options).run()


def ends(kind, tmp_path, number):
    """Return a function whose first record waits until one of a later chunk has been called."""
    later = str(tmp_path / "later")

    async def fn(n):
        if n == number:
            Path(later).touch()
        while n == 0 and not Path(later).exists():
            await asyncio.sleep(0.005)
        return n

    def plain(n):
        if n == number:
            Path(later).touch()
        while n == 0 and not Path(later).exists():
            threading.Event().wait(0.005)
        return n

    return fn if kind == "async" else plain


LIMITS = {"none": {}, "timeout": {"timeout": 60}, "memory": {"per_task": bf.Resources(memory="1GB")}}


@pytest.mark.parametrize("name", ["serial", "processes"])
@pytest.mark.parametrize("kind", ["async", "threads"])
@pytest.mark.parametrize("limits", LIMITS)
def test_slow_call_keeps_no_later_chunk_waiting(warm, name, kind, limits, tmp_path):
    later = 31 if limits != "memory" else 7  # its results count against the memory of the running chunk
    fn = ends(kind, tmp_path, later)
    result = run(fn, range(60), warm(name), concurrency=4, chunk=6, **LIMITS[limits])
    assert result.values == list(range(60))
    assert result.report.chunks == 10


@pytest.mark.parametrize("name", ["serial", "processes"])
def test_overlapping_chunks_keep_rows_and_failures_in_order(warm, name):
    async def fn(n):
        await asyncio.sleep(0.001 * (n * 7919 % 13))
        if n % 5 == 0:
            raise ValueError(f"no {n}")
        return n

    result = run(fn, range(200), warm(name), concurrency=8, chunk=9)
    assert result.errors["record"].to_pylist() == [n + 1 for n in range(0, 200, 5)]
    assert result.errors["payload"].to_pylist() == [str(n) for n in range(0, 200, 5)]
    assert result.values == [n for n in range(200) if n % 5]


def hang():
    threading.Event().wait()


def hang_deaf():
    """Hang as in C code that hears no signal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(60)


def broken(heard):
    return [event for event in heard if isinstance(event, TaskEnded) and event.died and event.stats.seconds]


@pytest.mark.parametrize("kind", ["async", "threads"])
@pytest.mark.parametrize("chunk", [1, 6])
def test_call_that_hangs_among_overlapping_chunks_costs_one_limit(warm, kind, chunk):
    async def waits(n):
        await asyncio.sleep(0.001 * (n % 7) if n != 31 else 60)
        return n

    def plain(n):
        threading.Event().wait(0.001 * (n % 7) if n != 31 else None)
        return n

    heard = []
    result = run(
        waits if kind == "async" else plain,
        range(60),
        warm("processes"),
        concurrency=4,
        chunk=chunk,
        timeout=LIMIT,
        listeners=[heard.append],
    )
    assert result.errors.select(["record", "phase"]).to_pylist() == [{"record": 32, "phase": "timeout"}]
    assert result.values == [n for n in range(60) if n != 31]
    assert len(broken(heard)) == 1


@pytest.mark.parametrize(("blocks", "chunk"), [(hang, 1), (hang_deaf, 8)])
def test_call_that_blocks_the_loop_of_other_chunks_costs_itself(warm, blocks, chunk):
    async def fn(n):
        await asyncio.sleep(0.005 if n < 31 else 0)
        if n == 31:
            blocks()
        return n

    result = run(fn, range(40), warm("processes"), concurrency=4, chunk=chunk, timeout=LIMIT)
    assert result.errors.select(["record", "phase"]).to_pylist() == [{"record": 32, "phase": "timeout"}]
    assert result.values == [n for n in range(40) if n != 31]


def test_calls_that_are_all_too_slow_together_succeed_by_themselves(warm):
    """Eight at once take longer than the limit, since they take turns; one by itself does not."""

    async def fn(n, turn):
        async with turn:
            await asyncio.sleep(LIMIT / 3)
        return n

    result = run(fn, range(8), warm("processes"), concurrency=8, chunk=8, timeout=LIMIT, setup=asyncio.Lock)
    assert result.values == list(range(8))


def test_call_that_kills_its_worker_among_overlapping_chunks_costs_itself(warm):
    async def fn(n):
        await asyncio.sleep(0.001 * (n % 7))
        if n == 70:
            os._exit(3)
        return n

    result = run(fn, range(120), warm("processes"), concurrency=4, chunk=6)
    assert result.errors["record"].to_pylist() == [71]
    assert result.values == [n for n in range(120) if n != 70]


@pytest.mark.parametrize("name", ["serial", "processes"])
def test_overlap_calls_each_record_once(warm, name, tmp_path):
    async def fn(n):
        with (tmp_path / "called").open("a") as file:
            file.write(f"{n}\n")
        await asyncio.sleep(0.001 * (n % 5))
        return n

    result = run(fn, range(100), warm(name), concurrency=4, chunk=7, rate="5000/s")
    assert result.values == list(range(100))
    assert sorted(map(int, (tmp_path / "called").read_text().split())) == list(range(100))


@pytest.mark.parametrize("kind", ["async", "threads"])
def test_task_that_arrives_during_a_slow_call_begins(kind, tmp_path):
    """All calls wait for one of a chunk that the worker receives only then: no call ends that could notice it."""
    later = tmp_path / "later"

    def numbers():
        yield from range(2)
        while not (tmp_path / "waits").exists():
            threading.Event().wait(0.005)
        yield from range(2, 4)

    async def fn(n):
        (later if n >= 2 else tmp_path / "waits").touch()
        while not later.exists():
            await asyncio.sleep(0.005)
        return n

    def plain(n):
        (later if n >= 2 else tmp_path / "waits").touch()
        while not later.exists():
            threading.Event().wait(0.005)
        return n

    with bf.Processes(1) as one:
        result = run(fn if kind == "async" else plain, numbers(), one, concurrency=4, chunk=2)
    assert result.values == [0, 1, 2, 3]
