"""The scheduler, whatever the order of completion and whatever dies."""

from collections import Counter

from fake import FakeExecutor, records_of
from hypothesis import given, settings
from hypothesis import strategies as st
from seen import seen

import batchflow as bf
from batchflow.jobs.scheduler import AHEAD

slots = st.integers(1, 5)
chunks = st.integers(1, 20)  # without a size they follow measured time, which no test can repeat
bad = st.sets(st.integers(0, 99), max_size=8)


def picking(data):
    return lambda count: data.draw(st.integers(0, count - 1))


def fake(data, count, deadly=frozenset(), flaky=False):
    """Return an executor that dies of some records always, and of longer chunks now and then."""

    def dies(task):
        records = records_of(task)
        if deadly.intersection(records):
            return True
        return flaky and len(records) > 1 and task.attempt < 3 and data.draw(st.integers(0, 9)) == 0

    return FakeExecutor(count, picking(data), dies)


@settings(deadline=None)
@given(st.data(), st.integers(0, 100), slots, chunks, bad, bad)
def test_each_record_is_in_the_output_or_the_errors_once(data, size, count, chunk, failing, deadly):
    def fn(x):
        if x in failing:
            raise ValueError(x)
        return x

    executor = fake(data, count, deadly, flaky=True)
    result = bf.map_records(fn, bf.records(range(size)), executor=executor, chunk=chunk)
    good = [x for x in range(size) if x not in failing | deadly]
    assert seen(result).values == good
    assert result.errors["record"].to_pylist() == [x + 1 for x in range(size) if x not in good]
    assert result.errors["payload"].to_pylist() == [str(x) for x in range(size) if x not in good]
    kinds = ["WorkerDied" if x in deadly else "ValueError" for x in range(size) if x not in good]
    assert result.errors["error_type"].to_pylist() == kinds
    assert result.report.rows_in == size
    assert result.report.rows_out == len(good)
    assert executor.most <= count * (1 + executor.prefetch)
    assert executor.queue == []


@settings(deadline=None)
@given(st.data(), st.integers(0, 60), slots, chunks, bad)
def test_batches_are_halved_until_the_guilty_are_alone(data, size, count, chunk, failing):
    def fn(table):
        if failing.intersection(table["value"].to_pylist()):
            raise ValueError("bad")
        return table

    source = bf.records(range(size))
    result = bf.map_batches(fn, source, executor=fake(data, count, flaky=True), chunk=chunk)
    assert seen(result).values == [x for x in range(size) if x not in failing]
    assert result.errors["record"].to_pylist() == [x + 1 for x in range(size) if x in failing]


@settings(deadline=None)
@given(st.data(), st.integers(1, 200), slots, st.integers(1, 20))
def test_combine_gives_one_table_whatever_the_order(data, size, count, chunk):
    def concat(table):
        """Keep all, so that any loss, doubling or change of order shows."""
        return table

    source = bf.records(range(size))
    result = bf.map_records(lambda x: x, source, combine=concat, executor=fake(data, count), chunk=chunk)
    assert result.values == list(range(size))


@settings(deadline=None)
@given(st.data(), st.integers(1, 5), st.integers(1, 4))
def test_caps_hold(data, cpus, count):
    executor = fake(data, count)
    limits = bf.Resources(cpus=cpus)
    bf.map_records(lambda x: x, bf.records(range(40)), executor=executor, limits=limits, chunk=2)
    assert executor.most == min(cpus, count) * 2


@settings(deadline=None)
@given(st.data(), slots, st.booleans(), bad, bad)
def test_streams_give_every_row_and_stay_near_their_consumer(data, count, ordered, failing, deadly):
    drawn = shown = 0

    def source():
        nonlocal drawn
        for x in range(100):
            drawn += 1
            yield x

    def fn(x):
        if x in failing:
            raise ValueError(x)
        return x

    stream = bf.stream_batches(
        fn,
        bf.records(source()),
        per="record",
        ordered=ordered,
        max_errors=None,
        chunk=1,
        executor=fake(data, count, deadly),
    )
    rows = []
    for table in stream:
        assert drawn - shown <= AHEAD * count + len(failing | deadly)
        shown += table.num_rows
        rows += table["value"].to_pylist()
    good = [x for x in range(100) if x not in failing | deadly]
    if ordered:
        assert rows == good
    assert Counter(rows) == Counter(good)


@settings(deadline=None)
@given(st.data(), slots, st.booleans(), st.integers(0, 20))
def test_a_stream_that_is_closed_stops_the_work(data, count, ordered, taken):
    executor = fake(data, count)
    stream = bf.stream_batches(
        lambda x: x, bf.records(range(1000)), per="record", ordered=ordered, chunk=1, executor=executor
    )
    for _ in range(taken):
        next(stream)
    stream.close()
    assert executor.queue == []
    assert len(executor.performed) <= taken + AHEAD * count
    assert executor.closed == (1 if taken else 0)
