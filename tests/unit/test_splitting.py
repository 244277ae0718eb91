"""The size of chunks, played through with functions of known speed; no clock is involved."""

import heapq
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchflow.core.chunk_sizing import (
    ALONE_LEAST,
    ALONE_SECONDS,
    ALONE_SHARE,
    AT_ONCE,
    FLOOR_SECONDS,
    GROWTH,
    TARGET_SECONDS,
    ChunkPacing,
    ChunkSizer,
)


def play(total, slots, rate, first=64, pace=AT_ONCE):
    """Return the sizes of chunks of a job whose function does ``rate`` records a second."""
    sizer = ChunkSizer(total, slots, first, pace=pace)
    left, sizes = total, []
    while left:
        size = min(left, sizer.next())
        sizer.drawn(size)
        sizer.learn(size, size / rate)
        sizes.append(size)
        left -= size
    return sizes


def test_the_first_results_come_at_once_and_chunks_grow_to_the_target():
    sizes = play(10_000_000, 2, rate=100_000)
    assert sizes[0] == 64
    assert sizes[1] == 64 * GROWTH
    assert max(sizes) == 100_000 * TARGET_SECONDS


def test_chunks_shrink_towards_the_end():
    sizes = play(10_000_000, 4, rate=1_000_000)
    assert sizes[-1] <= 1_000_000 * FLOOR_SECONDS * 1.01
    assert all(later <= sooner + 1 for sooner, later in pairwise(sizes[-20:]))  # whole records


@pytest.mark.parametrize("slots", [2, 8])
def test_records_that_cost_a_thousand_times_as_much_at_the_end_keep_all_slots_busy(slots):
    costs = [1e-5 * 1_000 ** (at / 4_000) for at in range(4_000)]
    assert last_end(costs, slots) <= 1.02 * sum(costs) / slots


def last_end(costs, slots):
    """Return when the last of some slots comes to its end, each of which takes the next chunk when it is free."""
    sizer = ChunkSizer(len(costs), slots, 4)
    at, free, running = 0, [0.0] * slots, []
    while at < len(costs) or running:
        if at < len(costs) and len(running) < slots:
            began, size = heapq.heappop(free), sizer.next()
            sizer.drawn(len(costs[at : at + size]))
            heapq.heappush(running, (began + sum(costs[at : at + size]), began, len(costs[at : at + size])))
            at += size
        else:
            ended, began, size = heapq.heappop(running)
            sizer.learn(size, ended - began)
            heapq.heappush(free, ended)
    return max(free)


def test_few_records_are_spread_over_all_slots():
    assert play(100, 4, rate=100)[:4] == [12, 11, 9, 8]


def test_records_that_cost_nothing_are_not_worth_spreading():
    assert play(100, 4, rate=1e9) == [12, 88]


def test_dear_records_come_one_by_one():
    assert set(play(50, 2, rate=0.1)[12:]) == {1}


def alone(total, slots, rate, chunk=None):
    """Return how much was done before a chunk was worth running alone, and its weight; of 10,000 chunks at most."""
    sizer = ChunkSizer(total, slots, 64, chunk)
    done = 0
    for _ in range(10_000):
        if (weight := sizer.alone()) is not None:
            return done, weight
        size = min(total - done, sizer.next())
        sizer.drawn(size)
        sizer.learn(size, size / rate)
        done += size
        if done == total:
            break
    return None


def test_a_chunk_runs_alone_early_in_a_long_job():
    assert alone(100_000_000, 4, rate=100_000) == (64, pytest.approx(100_000 * ALONE_SECONDS, abs=1))  # 250 s
    assert alone(10_000_000, 4, rate=100_000) == (
        64,
        24_871,
    )  # 25 s, of which a hundredth, but for what runs by then


def test_no_chunk_runs_alone_where_that_would_show():
    assert alone(5_000_000, 4, rate=250_000) is None  # 5 s
    assert alone(100, 4, rate=0.1) is None  # 250 s, but a record takes 10


def test_a_chunk_of_a_fixed_size_runs_alone_where_it_is_neither_too_short_nor_too_long():
    assert alone(100_000_000, 4, rate=100_000, chunk=100) is None
    assert alone(100_000_000, 4, rate=100_000, chunk=10_000) == (10_000, 10_000)
    assert alone(100_000_000, 4, rate=100_000, chunk=100_000) is None


@given(st.integers(1, 10**9), st.integers(2, 100), st.floats(1e-3, 1e6), st.none() | st.integers(1, 10**6))
def test_what_runs_alone_takes_little_of_the_time_that_is_left(total, slots, rate, chunk):
    found = alone(total, slots, rate, chunk and max(chunk, total // 1000))
    if found is not None:
        done, weight = found
        assert weight / rate >= ALONE_LEAST
        assert weight <= 1.001 * ALONE_SHARE * (total - done) / slots


def test_a_fixed_size_stays():
    sizer = ChunkSizer(1000, 4, 64, fixed=7)
    assert sizer.next() == 7
    sizer.learn(7, 100.0)
    sizer.drawn(993)
    assert sizer.next() == 7


def test_an_unknown_total_never_shrinks_for_the_end():
    sizer = ChunkSizer(None, 2, 64)
    sizer.learn(64, 0.001)
    assert sizer.next() == 64 * GROWTH


def test_chunks_keep_the_calls_of_a_worker_busy():
    sizes = play(100_000, 2, rate=2_000, first=4, pace=ChunkPacing(calls=200))
    assert sizes[0] == 800
    assert min(sizes[:-1]) >= 200
    assert max(sizes) == 4_000


def test_few_records_are_spread_over_all_workers_that_wait():
    assert play(300, 2, rate=1_000, first=4, pace=ChunkPacing(calls=100)) == [100, 100, 100]
    assert play(5_000, 1, rate=4_000, first=4, pace=ChunkPacing(calls=200)) == [800, 4_200]


def test_records_of_a_file_have_a_weight():
    sizes = play(10_000_000, 2, rate=200_000, first=4_000, pace=ChunkPacing(calls=200, record=100.0))
    assert sizes[0] == 80_000
    assert min(sizes[:-1]) >= 20_000


def test_a_chunk_is_no_more_than_a_rate_allows_in_its_time():
    assert max(play(1_000, 2, rate=50, first=4, pace=ChunkPacing(calls=100, most=250.0))) == 125
    assert set(play(20, 2, rate=0.1, first=4, pace=ChunkPacing(most=0.5))) == {1}
    assert max(play(100_000, 2, rate=100_000, first=4_000, pace=ChunkPacing(record=100.0, most=250.0))) == 12_500


def test_batches_that_wait_for_their_turn_grow_until_it_is_worth_it():
    """A call of any size takes a second here, most of which it waits."""
    sizer, sizes = ChunkSizer(10_000_000, 2, 64, pace=ChunkPacing(gap=0.5)), []
    for _ in range(12):
        sizes.append(sizer.next())
        sizer.drawn(sizes[-1])
        sizer.learn(sizes[-1], max(1.0, sizes[-1] / 10_000))
    assert sizes == sorted(sizes)
    assert sizes[-1] > 5_000


@given(
    st.one_of(st.none(), st.integers(1, 10**9)),
    st.integers(1, 64),
    st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 1e4)), max_size=20),
)
def test_a_size_is_always_positive_and_never_explodes(total, slots, history):
    sizer = ChunkSizer(total, slots, 64)
    largest = 64
    for weight, seconds in history:
        sizer.drawn(weight)
        sizer.learn(weight, seconds)
        largest = max(largest, weight)
    assert 1 <= sizer.next() <= largest * GROWTH


def play_costs(total, slots, cost, first=1, timeout=None):
    """Return when the last slot ends and the sizes of chunks, of a job whose chunks take ``cost(size)`` seconds."""
    sizer = ChunkSizer(total, slots, first, timeout=timeout)
    at, free, running, sizes = 0, [0.0] * slots, [], []
    while at < total or running:
        if at < total and len(running) < slots:
            began, size = heapq.heappop(free), min(total - at, sizer.next())
            sizer.drawn(size)
            sizes.append(size)
            at += size
            heapq.heappush(running, (began + cost(size), began, size))
        else:
            ended, began, size = heapq.heappop(running)
            sizer.learn(size, ended - began)
            heapq.heappush(free, ended)
    return max(free), sizes


@pytest.mark.parametrize("slots", [1, 2, 8])
def test_fixed_cost_of_a_chunk_makes_few_chunks(slots):
    """Rows of 4,000 columns: 0.6 s to convert any number of them, 2 ms for each."""
    _, sizes = play_costs(2000, slots, lambda size: 0.6 + 0.002 * size)
    assert len(sizes) <= 6 * slots + 4


def test_fixed_cost_leaves_all_slots_busy():
    end, _ = play_costs(20_000, 4, lambda size: 0.2 + 0.002 * size)
    assert end <= 1.35 * (20_000 * 0.002 / 4)


@pytest.mark.parametrize("seconds", [0.06, 0.3, 0.9, 5.0])
def test_proportional_cost_is_not_taken_for_fixed(seconds):
    end, sizes = play_costs(200, 4, lambda size: seconds * size)
    assert end <= 200 * seconds / 4 + 8 * seconds
    assert sizes.count(1) > 100 or seconds < TARGET_SECONDS


def test_fixed_cost_heeds_the_time_limit():
    _, sizes = play_costs(20_000, 2, lambda size: 0.2 + 0.01 * size, timeout=2.0)
    assert max(0.2 + 0.01 * size for size in sizes) <= 1.0 + 0.01
