import heapq

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchflow.reporting.progress.counters import EtaEstimator


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def simulated(costs, slots, prefetch=1):
    """Run tasks of weight 1 with these costs; yield how long it takes from here, and the meter, at each end."""
    clock = Clock()
    meter = EtaEstimator(len(costs), 0, slots, clock)
    waiting, running, told = [], [], []
    left = list(reversed(list(enumerate(costs))))

    def fill():
        while left and len(waiting) + len(running) < slots * (1 + prefetch):
            key, cost = left.pop()
            meter.begin((key,), 1)
            waiting.append((key, cost))
        while waiting and len(running) < slots:
            key, cost = waiting.pop(0)
            heapq.heappush(running, (clock.now + cost, key, cost))

    fill()
    while running:
        then, key, cost = heapq.heappop(running)
        middle = (clock.now + then) / 2
        if middle > clock.now:
            clock.now = middle
            told.append((clock.now, meter.left, meter.busy))
        clock.now = then
        meter.end((key,), 1, cost)
        fill()
        told.append((clock.now, meter.left, meter.busy))
    return [(clock.now - now, left, busy) for now, left, busy in told]


def test_tasks_that_are_alike_end_when_it_says():
    told = simulated([1 + at * 7 % 10 / 10 for at in range(200)], slots=4)
    for real, left, busy in told[60:-8]:
        assert left == pytest.approx(real, rel=0.1, abs=2)
        assert busy == 4
    assert told[-1] == (0.0, 0.0, 0)


def test_nobody_can_tell_before_anything_is_done_or_where_there_is_no_total():
    clock = Clock()
    meter = EtaEstimator(10, 0, 2, clock)
    meter.begin((0,), 5)
    clock.now += 7
    assert (meter.left, meter.rate, meter.busy) == (None, None, 1)
    endless = EtaEstimator(None, 0, 2, clock)
    endless.begin((0,), 5)
    clock.now += 2
    endless.end((0,), 5, 2.0)
    assert (endless.left, endless.rate, endless.done) == (None, 2.5, 5)


def test_what_earlier_runs_did_is_no_speed_of_this_one():
    clock = Clock()
    meter = EtaEstimator(1000, 900, 1, clock)
    meter.begin((0,), 10)
    clock.now += 10
    meter.end((0,), 10, 10.0)
    assert (meter.done, meter.rate, meter.left) == (910, 1.0, pytest.approx(90))


def test_a_task_under_way_for_long_is_taken_to_need_as_long_again():
    clock = Clock()
    meter = EtaEstimator(3, 0, 1, clock)
    for key in range(2):
        meter.begin((key,), 1)
        clock.now += 1
        meter.end((key,), 1, 1.0)
    meter.begin((2,), 1)
    assert meter.left == pytest.approx(1)
    clock.now += 60
    assert meter.left == pytest.approx(60)


def test_the_last_tenth_is_the_dearest():
    """20 times as dear as the rest, so it takes two thirds of the time; an average since the start is far off."""
    costs = [1.0] * 900 + [15.0 + at * 7 % 11 for at in range(100)]
    told = simulated(costs, slots=8)
    total = told[0][0]
    dear = [(real, left) for real, left, _ in told if real < 100 * 20 / 8 - 40 and real > 0]
    assert len(dear) > 120
    for real, left in dear:
        assert real / 2 <= left <= 2 * real + 40  # as long again as what is under way, at the very end
    halfway = min(told, key=lambda one: abs(one[0] - 100 * 10 / 8))
    done, spent = 950, total - halfway[0]
    average = spent * (1000 - done) / done
    assert average < halfway[0] / 5  # what a rate since the start tells
    assert halfway[1] == pytest.approx(halfway[0], rel=0.3)


@given(st.lists(st.floats(0.01, 100), min_size=3, max_size=60), st.integers(1, 5), st.integers(0, 1))
@settings(max_examples=60, deadline=None)
def test_it_never_says_nothing_is_left_while_somebody_works(costs, slots, prefetch):
    told = simulated(costs, slots, prefetch)
    for _, left, busy in told:
        assert busy <= slots
        assert left is None or left >= 0
        assert (left == 0) == (busy == 0) or left is None
    assert told[-1] == (0.0, 0.0, 0)


def test_a_task_that_is_tried_again_is_not_done_and_tells_no_speed():
    clock = Clock()
    meter = EtaEstimator(4, 0, 1, clock)
    meter.begin((0,), 4)
    clock.now += 5
    meter.end((0,), 4, 5.0, ok=False, again=True)
    assert (meter.done, meter.rate, meter.busy) == (0, None, 0)


def test_slots_that_come_and_go():
    meter = EtaEstimator(10, 0, 1, Clock())
    for key in range(3):
        meter.begin((key,), 1)
    assert meter.busy == 1
    meter.resize(2)
    assert meter.busy == 2
    meter.end((0,), 1, 1.0)
    assert meter.busy == 2
