"""Calls that wait: those of the next chunks begin while the last ones of a chunk are waited for."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

import batchflow as bf


def run(fn, data, executor, **options):
    return bf.map_records(fn, bf.records(data), executor=executor, limits=bf.Resources(cpus=1), **options)


def ends(kind, tmp_path):
    """Return a function whose first record waits until one of a later chunk has been called."""
    later = str(tmp_path / "later")

    async def fn(n):
        if n == 31:
            Path(later).touch()
        while n == 0 and not Path(later).exists():
            await asyncio.sleep(0.005)
        return n

    def plain(n):
        if n == 31:
            Path(later).touch()
        while n == 0 and not Path(later).exists():
            threading.Event().wait(0.005)
        return n

    return fn if kind == "async" else plain


@pytest.mark.parametrize("name", ["serial", "processes"])
@pytest.mark.parametrize("kind", ["async", "threads"])
def test_slow_call_keeps_no_later_chunk_waiting(warm, name, kind, tmp_path):
    fn = ends(kind, tmp_path)
    result = run(fn, range(60), warm(name), concurrency=4, chunk=6)
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
