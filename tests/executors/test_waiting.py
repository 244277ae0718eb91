"""Functions that wait for a server: many calls at once, rows in order, failures and limits as ever."""

import asyncio
import itertools
import os
import threading
import time
import urllib.request

import aiohttp
import pytest
import web
from seen import seen

import batchflow as bf
from batchflow.errors import RetryAfter
from batchflow.testing import Script
from batchflow.worker.concurrent_task import AHEAD

AT_ONCE = bf.Retry(attempts=3, backoff=0)


@pytest.fixture(scope="module")
def running():
    with web.serving() as server:
        yield server


@pytest.fixture
def server(running):
    running.reset()
    return running


def run(fn, data, executor, **options):
    return bf.map_records(fn, bf.records(data), executor=executor, **options)


def told(result):
    columns = ["start", "record", "payload", "phase", "error_type", "message", "attempts"]
    return [tuple(row.values()) for row in result.errors.select(columns).to_pylist()]


async def client():
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


async def get(n, session, url):
    async with session.get(f"{url}/{n}") as response:
        if response.status == 429:
            raise RetryAfter(response.headers["Retry-After"])
        return int(await response.text())


def get_plainly(n, url):
    with urllib.request.urlopen(f"{url}/{n}") as response:
        return int(response.read())


# --- many at once -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "threads"])
def test_so_many_calls_are_under_way_and_no_more(executor, server, kind):
    """The server answers nobody before one worker's fill is there."""
    server.reset(gather=8)
    options = {"args": {"url": server.url}, "concurrency": 8, "limits": bf.Resources(cpus=1)}
    if kind == "async":
        result = run(get, range(100), executor, setup=client, **options)
    else:
        result = run(get_plainly, range(100), executor, **options)
    assert result.values == list(range(100))
    assert server.most == 8
    assert sorted(server.seen) == list(range(100))


def test_all_workers_together_have_as_many_times_their_number(remote, server):
    server.reset(delay=0.02)
    result = run(get, range(300), remote, setup=client, args={"url": server.url}, concurrency=10)
    assert result.values == list(range(300))
    assert 10 <= server.most <= 20


def test_an_async_function_needs_no_number(executor, server):
    server.reset(gather=100)
    assert run(get, range(200), executor, setup=client, args={"url": server.url}, chunk=200).values == list(
        range(200)
    )
    assert server.most == 100


def test_one_slow_call_does_not_keep_those_behind_its_block_waiting(warm, server, tmp_path):
    """Each file is a block of its own; the first one is answered when 30 others are."""
    for n in range(40):
        (tmp_path / f"{n:02}").write_text(str(n))
    server.reset(hold=[0], until=30)

    async def fetch(file, session, url):
        return await get(int(file.read_text()), session, url)

    result = bf.map_records(
        fetch,
        bf.files(tmp_path),
        setup=client,
        args={"url": server.url},
        concurrency=8,
        chunk=40,
        executor=warm("serial"),
    )
    assert result.values == list(range(40))


@pytest.mark.parametrize("concurrency", [1, 3, 50])
def test_what_waits_for_its_turn_is_bounded(warm, monkeypatch, concurrency):
    """While the first record takes its time, no more than some blocks are begun behind it."""
    monkeypatch.setattr("batchflow.io.sources.in_memory._BLOCK_ROWS", 10)
    seen, behind = [], []

    async def fn(n):
        if n == 0:
            for _ in range(3000):  # turns of the loop, in which all others could be done
                await asyncio.sleep(0)
            behind.append(len(seen))
        seen.append(n)
        return n

    result = run(fn, range(2000), warm("serial"), concurrency=concurrency, chunk=2000)
    assert result.values == list(range(2000))
    [most] = behind
    assert concurrency - 1 <= most <= 10 + AHEAD * concurrency + 10


# --- order, rows and failures -----------------------------------------------------------------------


async def later(n):
    await asyncio.sleep(0.001 * (7 - n % 8))
    return n


def fail_never(n):
    return n


async def fail_some(n):
    await later(n)
    if n % 10 == 3:
        raise OSError(f"no {n}")
    return None if n % 10 == 4 else n


def fail_some_plainly(n):
    if n % 10 == 3:
        raise OSError(f"no {n}")
    return None if n % 10 == 4 else n


def test_rows_and_failures_are_those_of_one_call_after_the_other(executor):
    plain = run(fail_some_plainly, range(100), executor, retry=AT_ONCE)
    assert len(seen(plain).values) == 80
    assert told(plain)[1] == (13, 14, "13", "call", "OSError", "no 13", 3)
    for fn, options in ((fail_some, {}), (fail_some, {"concurrency": 7}), (fail_some_plainly, {"concurrency": 7})):
        result = run(fn, range(100), executor, retry=AT_ONCE, **options)
        assert seen(result).values == seen(plain).values
        assert told(result) == told(plain)
        assert result.report.retries == plain.report.retries == 20


async def many(n):
    for at in range(n % 4):
        await asyncio.sleep(0)
        yield None if at == 2 else n
    if n % 10 == 9:
        raise OSError("half way")


async def many_at_once(n):
    return (n for _ in range(n % 4))


def test_async_generators_give_many_rows(executor):
    result = run(many, range(40), executor)
    assert seen(result).values == [n for n in range(40) for _ in range(min(2, n % 4)) if n % 10 != 9]
    assert result.errors["record"].to_pylist() == [10, 20, 30, 40]
    assert run(many_at_once, range(10), executor).values == [n for n in range(10) for _ in range(n % 4)]
    assert run(lambda n: iter([n, n]), range(10), executor, concurrency=3).values == [
        n for n in range(10) for _ in "ab"
    ]


def test_failures_of_reading_stay_in_their_places(warm, tmp_path):
    text = "".join('{"n": oops}\n' if n % 7 == 0 else f'{{"n": {n}}}\n' for n in range(60))
    (tmp_path / "a.jsonl").write_text(text)

    async def fn(row):
        await later(row["n"])
        if row["n"] % 10 == 3:
            raise OSError("no")
        return row

    def plain(row):
        if row["n"] % 10 == 3:
            raise OSError("no")
        return row

    results = [
        bf.map_records(one, bf.read_json(tmp_path / "a.jsonl"), executor=warm("processes"), chunk=chunk)
        for one, chunk in ((plain, 60), (fn, 60), (fn, 7))
    ]
    assert results[0].errors.num_rows == 9 + 6
    assert len({tuple(map(str, seen(result).values)) for result in results}) == 1
    assert len({tuple(told(result)) for result in results}) == 1


def test_an_output_is_mended_and_resumed_with_other_options(warm, tmp_path, monkeypatch):
    """They change no rows, so they are no reason to refuse."""
    (tmp_path / "fails").touch()

    async def fn(n, mark):
        await later(n)
        if n % 5 == 0 and mark.exists():
            raise OSError("not yet")
        return n

    def job(**options):
        return bf.Job(
            fn,
            bf.records(range(20)),
            into=str(tmp_path / "out/"),
            args={"mark": tmp_path / "fails"},
            executor=warm("processes"),
            **options,
        )

    assert job(concurrency=5).run().errors.num_rows == 4
    assert job(rate="1000/s").run().errors.num_rows == 4
    (tmp_path / "fails").unlink()
    assert job(concurrency=2, rate=1000).retry_failed().values == list(range(20))


# --- setup ------------------------------------------------------------------------------------------


def test_setup_runs_in_the_loop_and_its_client_is_closed_there(warm):
    events = []

    class Client:
        def __init__(self):
            self.loop = asyncio.get_running_loop()

        async def close(self):
            events.append(asyncio.get_running_loop() is self.loop)

    async def fn(n, client):
        assert asyncio.get_running_loop() is client.loop
        return n

    async def made():
        return Client()

    for setup in (Client, made):
        assert run(fn, range(50), warm("serial"), setup=setup, chunk=5).values == list(range(50))
    assert events == [True, True]


def test_async_setup_runs_once_in_each_worker(executor, server):
    result = run(get, range(200), executor, setup=client, args={"url": server.url}, chunk=20)
    assert result.values == list(range(200))


def test_inside_a_running_loop(warm):
    """As in a notebook, where this thread is not free to run another."""

    async def notebook():
        return run(later, range(20), warm("serial")).values

    assert asyncio.run(notebook()) == list(range(20))


# --- limits -----------------------------------------------------------------------------------------


def make_hangs():
    """Return functions that hang at 5; they travel by value, so that no fresh worker imports this file in their time."""

    async def hang(n):
        await (asyncio.Event().wait() if n == 5 else asyncio.sleep(0))
        return n

    async def hang_in_a_loop(n):
        while n == 5:
            pass
        return n

    def hang_plainly(n):
        if n == 5:
            threading.Event().wait()
        return n

    def spin_plainly(n):
        while n == 5:
            pass
        return n

    return [hang, hang_in_a_loop, hang_plainly, spin_plainly]


@pytest.mark.parametrize("fn", make_hangs(), ids=lambda fn: fn.__name__)
def test_a_call_that_hangs_costs_itself_only(remote, fn):
    result = run(fn, range(8), remote, concurrency=4, chunk=4, timeout=0.3)
    assert seen(result).values == [0, 1, 2, 3, 4, 6, 7]
    assert [row[1:5] for row in told(result)] == [(6, "5", "timeout", "TimeoutError")]


def test_the_worker_goes_on_after_a_time_limit(warm):
    """With a new loop, and a new client in it."""

    async def connect():
        return asyncio.get_running_loop()

    async def fn(n, loop):
        assert loop is asyncio.get_running_loop()
        if n == 5:
            await asyncio.Event().wait()
        return os.getpid()

    result = run(
        fn, range(20), warm("processes"), setup=connect, chunk=4, timeout=0.3, limits=bf.Resources(cpus=1)
    )
    assert result.errors["record"].to_pylist() == [6]
    assert len(result.values) == 19
    assert len(set(result.values)) == 1


def test_asyncio_is_loaded_at_the_expense_of_no_task(script):
    """A time limit may break off what a program imports, and half of asyncio would be left."""
    done = script(
        """
        import sys
        import batchflow as bf

        def loaded():
            return "batchflow.worker.concurrent_task" in sys.modules

        class Probe:
            def __reduce__(self):
                return loaded, ()

        for options in ({"concurrency": 2}, {"rate": 1000}):
            fn = lambda n, probe: probe
            result = bf.map_records(fn, bf.records([1]), args={"probe": Probe()}, executor="processes", **options)
            print(*result.values)
        result = bf.map_batches(
            lambda table, probe: {"value": [probe]}, bf.records([1]), args={"probe": Probe()}, executor="processes",
            rate=1000,
        )
        print(*result.values)
        """
    )
    assert (done.stdout, done.stderr) == ("True\nTrue\nTrue\n", "")


async def grow(n):
    await asyncio.sleep(0)
    return len(bytearray(10**9)) if n == 5 else n


def grow_plainly(n):
    return len(bytearray(10**9)) if n == 5 else n


@pytest.mark.parametrize("fn", [grow, grow_plainly], ids=lambda fn: fn.__name__)
def test_a_call_that_takes_too_much_memory_costs_itself_only(remote, fn):
    result = run(fn, range(8), remote, concurrency=4, chunk=4, per_task=bf.Resources(memory="300MB"))
    assert seen(result).values == [0, 1, 2, 3, 4, 6, 7]
    assert [row[1:4] for row in told(result)] == [(6, "5", "memory")]


def test_a_call_that_kills_its_worker_costs_itself_only(remote, tmp_path):
    """Whatever else was on its way beside it, and though the worker may have had the turn at the rate."""
    script = Script(tmp_path, {5: "os._exit"})
    result = run(script, range(12), remote, concurrency=4, chunk=4, rate=1000)
    assert seen(result).values == [n for n in range(12) if n != 5]
    assert [row[1:4] for row in told(result)] == [(6, "5", "worker")]


def test_rows_that_cannot_be_written_end_what_is_on_its_way(warm):
    """The chunk fails as a whole, and the worker goes on."""

    def combine(table):
        if 3 in table["value"].to_pylist():
            raise OSError("no")
        return table

    for fn in (later, fail_never):
        options = {"combine": combine, "concurrency": 3, "chunk": 4}
        result = run(fn, range(8), warm("processes"), **options)
        assert result.errors["record"].to_pylist() == [4]
        assert sorted(result.values) == [0, 1, 2, 4, 5, 6, 7]


def test_a_stream_of_records(executor):
    stream = bf.stream_batches(
        later, bf.records(range(50)), per="record", concurrency=5, rate=5000, executor=executor
    )
    assert [value for table in stream for value in table["value"].to_pylist()] == list(range(50))


def test_jobs_of_a_flow_wait_too(executor):
    flow = bf.Flow("waits")
    first = flow.map_records(later, bf.records(range(40)), concurrency=20)
    second = flow.map_records(lambda row: 2 * row["value"], first, rate=1000, concurrency=4)
    value = flow.run(executor=executor)[second].value
    assert value["value"].to_pylist() == [2 * n for n in range(40)]


# --- rate -------------------------------------------------------------------------------------------

LATE = 0.25
"""Seconds by which a request may be later on its way than the one before it, on a busy machine."""


def check_rate(times, rate, burst=1):
    for seconds in (0.25, 0.5, 1.0):
        assert web.most_in(times, seconds) <= (seconds + LATE) * rate + burst


@pytest.mark.parametrize("kind", ["async", "threads", "one by one"])
def test_all_workers_together_keep_to_the_rate(executor, server, kind):
    options = {"args": {"url": server.url}, "rate": "80/s"}
    began = time.monotonic()
    if kind == "async":
        result = run(get, range(100), executor, setup=client, **options)
    else:
        result = run(get_plainly, range(100), executor, concurrency=5 if kind == "threads" else None, **options)
    assert result.values == list(range(100))
    assert time.monotonic() - began > 98.5 / 80
    check_rate(server.times, 80)


def test_tries_count_against_the_rate(warm, server):
    server.reset(busy=dict.fromkeys(range(20), (2, 0)))
    result = run(get, range(20), warm("processes"), setup=client, args={"url": server.url}, rate=60, retry=AT_ONCE)
    assert result.values == list(range(20))
    assert len(server.times) == 60
    check_rate(server.times, 60)


def test_batches_keep_to_the_rate_too(remote):
    def fn(table):
        return {"at": [time.monotonic()] * table.num_rows}

    result = bf.map_batches(fn, bf.records(range(40)), executor=remote, chunk=1, rate="40/s")
    times = [row["at"] for row in result.values]
    assert len(times) == 40
    check_rate(times, 40)


def test_a_function_told_to_come_later_does(executor, server):
    """Three tries without being asked for, and not before the time."""
    server.reset(busy={3: (2, 0.2), 5: (9, 0.05)})
    result = run(get, range(10), executor, setup=client, args={"url": server.url})
    assert seen(result).values == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert [row[1:] for row in told(result)] == [
        (6, "5", "call", "RetryAfter", "asked to try again in 0.05 seconds", 3)
    ]
    tries = [at for at, n in zip(server.times, server.seen, strict=True) if n == 3]
    assert all(later - earlier >= 0.2 for earlier, later in itertools.pairwise(tries))


def test_the_whole_job_pauses_with_it(remote, server):
    server.reset(busy={4: (1, 0.5)})
    result = run(
        get, range(60), remote, setup=client, args={"url": server.url}, rate="100/s", chunk=5, concurrency=2
    )
    assert result.values == list(range(60))
    told_at = server.times[server.seen.index(4)]
    assert not [at for at in server.times if told_at + LATE < at < told_at + 0.5]


def test_without_concurrency_it_is_tried_again_too(executor, tmp_path):
    script = Script(tmp_path, {2: [RetryAfter(0.01), RetryAfter(0.01), "ok"], 3: RetryAfter(0)})
    result = run(script, range(5), executor, chunk=5)
    assert seen(result).values == [0, 1, 2, 4]
    assert [script.attempts(n) for n in range(5)] == [1, 1, 3, 3, 1]
    assert run(script, [3], executor, retry=bf.Retry(attempts=1)).errors["attempts"].to_pylist() == [1]


def test_tasks_that_hold_no_core(remote, server):
    """More of them than cores side by side; the server answers nobody before they are all there."""
    server.reset(gather=5)
    result = run(get_plainly, range(10), remote, args={"url": server.url}, chunk=1, per_task=bf.Resources(cpus=0))
    assert result.values == list(range(10))
    assert 5 <= server.most <= 8


def cancel_all():
    for task in asyncio.all_tasks():
        task.cancel()


def stop_loop():
    asyncio.get_running_loop().stop()


@pytest.mark.parametrize("chunk", [1, 8])
@pytest.mark.parametrize("end", [cancel_all, stop_loop])
def test_function_that_ends_the_event_loop_fails_its_record(executor, end, chunk):
    async def fn(n):
        if n == 3:
            end()
        await asyncio.sleep(0)
        return n

    result = run(fn, range(8), executor, concurrency=4, chunk=chunk)
    assert seen(result).values == [n for n in range(8) if n != 3]
    [row] = result.errors.select(["record", "phase", "error_type", "message"]).to_pylist()
    assert row["message"].startswith("the function cancelled or stopped the event loop")
    assert (row["record"], row["phase"], row["error_type"]) == (4, "call", "RuntimeError")
