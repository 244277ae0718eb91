"""A rate is never exceeded, whenever calls ask and however late they wake; and it is reached."""

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchflow.core.rate import Rate, parse_rate
from batchflow.errors import RetryAfter, UsageError

rates = st.builds(Rate, st.floats(1e-3, 10), st.integers(1, 20))
waits = st.lists(st.floats(0, 5), min_size=1, max_size=60)


def play(rate, idle, late=()):
    """Return when calls started that each came some time after the one before, and woke late."""
    due, now, starts = 0.0, 1000.0, []
    for at, pause in enumerate(idle):
        now += pause
        while True:
            seconds, due = rate.take(due, now)
            if not seconds:
                break
            now += seconds + (late[at] if at < len(late) else 0)
        starts.append(now)
    return starts


@given(rates, waits, waits, st.floats(0.01, 20))
def test_in_no_time_are_there_more_calls_than_it_allows(rate, idle, late, seconds):
    starts = play(rate, idle, late)
    for first in range(len(starts)):
        inside = [at for at in starts[first:] if at - starts[first] < seconds - 1e-6]
        assert len(inside) <= math.ceil(seconds / rate.interval) + rate.burst


@given(rates, st.integers(1, 200))
def test_who_always_asks_gets_all_of_it(rate, count):
    starts = play(rate, [0] * count)
    assert starts[-1] - starts[0] <= (count - 1) * rate.interval
    assert starts[min(count, rate.burst) - 1] == starts[0]


@given(st.floats(1e-3, 10), st.integers(2, 100))
def test_waking_a_little_late_costs_nothing(interval, count):
    starts = play(Rate(interval), [0] * count, [0.4 * interval] * count)
    assert starts[-1] - starts[0] <= (count - 0.5) * interval


@given(rates, st.floats(0, 100), waits)
def test_no_call_starts_in_a_pause(rate, seconds, idle):
    due = rate.paused(rate.take(0.0, 1000.0)[1], 1000.0 + seconds)
    now = 1000.0
    for pause in idle:
        now += pause / 10
        wait, after = rate.take(due, now)
        if now + 1e-6 < 1000.0 + seconds:
            assert wait == pytest.approx(1000.0 + seconds - now, abs=rate.interval + 1e-6) or wait > 0
            assert after == due
    assert rate.take(due, 1000.0 + seconds + rate.interval)[0] == 0


@given(rates, st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_pause_never_shortens_another(rate, one, other):
    assert rate.paused(rate.paused(0.0, one), other) == max(rate.paused(0.0, one), rate.paused(0.0, other))


@pytest.mark.parametrize(
    ("text", "per_second", "burst"),
    [
        (50, 50, 1),
        (0.5, 0.5, 1),
        ("50/s", 50, 1),
        ("50", 50, 1),
        ("90/min", 1.5, 1),
        ("1800/h", 0.5, 1),
        ("2.5/s", 2.5, 1),
        ("50/s burst 10", 50, 10),
        ("50 burst 10", 50, 10),
        (1000, 1000, 10),
        ("1000/s burst 1", 1000, 1),
    ],
)
def test_what_is_a_rate(text, per_second, burst):
    rate = parse_rate(text)
    assert rate.per_second == pytest.approx(per_second)
    assert rate.burst == burst
    assert parse_rate(rate) is rate


@pytest.mark.parametrize(
    "wrong",
    [
        0,
        -1,
        "0/s",
        "-1/s",
        "",
        "fast",
        "50/ s",
        "50 /s",
        "50/day",
        "50/s burst",
        "50/s burst 0",
        "50/s burst 1.5",
        "50/s, burst 10",
        "5e3/s",
        " 50/s",
        "50/s\n",
        True,
        None,
        [50],
        b"50/s",
        float("nan"),
        float("inf"),
        1e9,
    ],
    ids=repr,
)
def test_what_is_no_rate(wrong):
    with pytest.raises(
        UsageError, match=r"is not a rate: write calls per second as a number over 0, or like '50/s'"
    ):
        parse_rate(wrong)


def test_when_to_come_again():
    assert RetryAfter("1.5").seconds == 1.5
    assert RetryAfter(-3).seconds == 0
    assert str(pickle.loads(pickle.dumps(RetryAfter(2)))) == "asked to try again in 2 seconds"
    for wrong in ("soon", None, float("nan"), float("inf"), 10**6):
        with pytest.raises(ValueError, match=r"RetryAfter\(.*\): give a number of seconds, a day at most"):
            RetryAfter(wrong)
