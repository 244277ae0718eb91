"""The size of chunks, played through with functions of known speed; no clock is involved."""

from hypothesis import given
from hypothesis import strategies as st

from batchflow.splitting import FLOOR_SECONDS, GROWTH, TARGET_SECONDS, ChunkSizer


def play(total, slots, rate, first=64):
    """Return the sizes of chunks of a job whose function does ``rate`` records a second."""
    sizer = ChunkSizer(total, slots, first)
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
    assert sizes[-5:] == sorted(sizes[-5:], reverse=True)


def test_few_records_are_spread_over_all_slots():
    assert play(100, 4, rate=100)[:4] == [12, 11, 9, 8]


def test_records_that_cost_nothing_are_not_worth_spreading():
    assert play(100, 4, rate=1e9) == [12, 88]


def test_dear_records_come_one_by_one():
    assert set(play(50, 2, rate=0.1)[12:]) == {1}


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
