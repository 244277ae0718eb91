"""What is tried again, how often and where it shows."""

import itertools
import time
from collections import Counter

import pytest
from fake import FakeExecutor, records_of
from seen import seen

import batchflow as bf
from batchflow import errors
from batchflow.core.retry import LONGEST_DELAY, NEVER, Retry
from batchflow.core.work import Task
from batchflow.events import TaskEnded

AT_ONCE = {"backoff": 0}


@pytest.mark.parametrize("on", ["OSError", (OSError, "x"), 3, [OSError]])
def test_what_is_no_exception_class_is_refused(on):
    with pytest.raises(errors.UsageError, match=r"name exception classes, like on=\(OSError, TimeoutError\)"):
        Retry(on=on)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"per_task": 2}, r"per_task=2 must be Resources, like per_task=bf\.Resources\(cpus=2\)"),
        ({"limits": {"cpus": 2}}, r"limits=\{'cpus': 2\} must be Resources"),
        ({"retry": 3}, r"retry=3 must be a Retry, like retry=Retry\(attempts=3\)"),
        ({"timeout": "60"}, "timeout='60' must be a number of seconds over 0"),
        ({"timeout": 0}, "timeout=0 must be"),
        ({"timeout": float("inf")}, "timeout=inf must be"),
        ({"timeout": float("nan")}, "timeout=nan must be"),
        (
            {"per_task": bf.Resources(memory="1MB")},
            "per_task memory=1 MB is too little for any task: give 20 MB or",
        ),
    ],
)
def test_limits_of_another_type_are_refused_before_anything_runs(options, told):
    with pytest.raises(errors.UsageError, match=told):
        bf.map_records(abs, bf.records([1]), executor="serial", **options)


class FlakyError(Exception):
    """Goes away."""


@pytest.mark.parametrize(
    ("error", "helped"),
    [
        (TypeError(), False),
        (ValueError(), False),
        (KeyError(1), False),
        (ZeroDivisionError(), False),
        (MemoryError(), False),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (SystemExit(), False),
        (OSError(), True),
        (TimeoutError(), True),
        (ConnectionError(), True),
        (FlakyError(), True),
        (RuntimeError(), True),
        (errors.WorkerDied("x"), True),
    ],
    ids=repr,
)
def test_mistakes_are_not_tried_again_unless_asked(error, helped):
    assert Retry().helps(error) == Retry().helps(type(error)) == helped
    assert Retry(on=(type(error),)).helps(error)
    assert not Retry(on=(UnicodeError,)).helps(error)


def test_who_asks_for_another_try_gets_two():
    asked = errors.RetryAfter(7)
    assert [NEVER.again(asked, attempt) for attempt in (1, 2, 3)] == [True, True, False]
    assert not Retry(attempts=1).again(asked, 1)
    assert Retry(attempts=2, on=OSError).again(asked, 1)
    assert not NEVER.again(OSError(), 1)
    assert Retry(backoff=0).after([OSError(), asked, errors.RetryAfter(3)], 1) == 7


def test_delays_double_and_are_bounded():
    fixed = Retry(backoff=0.5, jitter=0)
    assert [fixed.delay(attempt) for attempt in (1, 2, 3, 4)] == [0.5, 1, 2, 4]
    assert fixed.delay(10**6) == LONGEST_DELAY
    assert all(0.25 <= Retry(backoff=0.5, jitter=0.5).delay(1) <= 0.5 for _ in range(100))


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"backoff": -1}, {"jitter": 2}])
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(errors.UsageError, match="attempts are 1 or more, backoff 0 or more, jitter from 0 to 1"):
        Retry(**wrong)


class Flaky:
    """Fails for each input as often as a table says, in this process."""

    def __init__(self, times, error=FlakyError):
        self.times = times
        self.error = error
        self.calls = []

    def __call__(self, n):
        self.calls.append(n)
        if self.calls.count(n) <= self.times.get(n, 0):
            raise self.error(n)
        return n

    def many(self, n):
        yield n
        yield self(n)


def run(fn, count, **options):
    return bf.map_records(fn, bf.records(range(count)), executor="serial", **options)


@pytest.mark.parametrize("chunk", [1, 3, 10])
def test_records_are_tried_again_and_stay_in_their_places(chunk):
    fn = Flaky({0: 1, 4: 2, 5: 2, 9: 3})
    result = run(fn, 10, retry=Retry(attempts=3, **AT_ONCE), chunk=chunk)
    assert seen(result).values == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    [row] = result.errors.to_pylist()
    assert (row["record"], row["error_type"], row["attempts"]) == (10, "FlakyError", 3)
    assert [fn.calls.count(n) for n in range(10)] == [2, 1, 1, 1, 3, 3, 1, 1, 1, 3]
    assert result.report.retries == 7


def test_a_generator_that_fails_half_way_gives_its_rows_once():
    fn = Flaky({1: 1, 2: 5})
    result = run(fn.many, 4, retry=Retry(attempts=3, **AT_ONCE))
    assert seen(result).values == [0, 0, 1, 1, 3, 3]
    assert result.errors.select(["record", "attempts"]).to_pylist() == [{"record": 3, "attempts": 3}]


def test_a_mistake_costs_one_try():
    fn = Flaky({2: 1}, TypeError)
    result = run(fn, 4, retry=Retry(attempts=5, **AT_ONCE))
    assert result.errors.select(["record", "attempts"]).to_pylist() == [{"record": 3, "attempts": 1}]
    assert fn.calls == [0, 1, 2, 3]
    assert run(Flaky({2: 1}, TypeError), 4, retry=Retry(on=TypeError, **AT_ONCE)).values == [0, 1, 2, 3]


def test_without_retry_nothing_is_tried_again():
    result = run(Flaky({2: 1}), 4)
    assert result.errors.select(["record", "attempts"]).to_pylist() == [{"record": 3, "attempts": 1}]


def test_a_batch_is_tried_again_before_it_is_halved():
    calls = []

    def fn(table):
        values = table["value"].to_pylist()
        calls.append(values)
        if 2 in values and len(values) > 1:
            raise FlakyError
        return table

    result = bf.map_batches(
        fn, bf.records(range(4)), executor="serial", chunk=4, retry=Retry(attempts=2, **AT_ONCE)
    )
    assert result.values == [0, 1, 2, 3]
    assert calls == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1], [2, 3], [2], [3]]
    assert result.report.retries == 5


@pytest.mark.parametrize(("isolate", "max_errors", "rows"), [(None, None, 3), (False, None, 0), (True, 5, 3)])
def test_isolate_decides_whether_a_batch_is_halved(isolate, max_errors, rows):
    def fn(table):
        if 2 in table["value"].to_pylist():
            raise FlakyError
        return table

    source = bf.records(range(4))
    result = bf.map_batches(fn, source, executor="serial", chunk=4, isolate=isolate, max_errors=max_errors)
    assert len(seen(result).values) == rows
    assert result.errors.num_rows == 1


def test_the_first_error_stops_a_batch_job_without_halving():
    calls = []

    def fn(table):
        calls.append(table.num_rows)
        raise FlakyError

    with pytest.raises(errors.StoppedError):
        bf.map_batches(fn, bf.records(range(4)), executor="serial", chunk=4, max_errors=0)
    assert calls == [4]


class FlakyFile:
    """A source file whose first reads break off."""

    def __init__(self, monkeypatch, times):
        from batchflow.io.sources import line_reader as lines

        self.opened = 0
        opened = lines.open_input

        def open_input(uri):
            self.opened += 1
            if self.opened <= times:
                raise ConnectionError("the line went dead")
            return opened(uri)

        monkeypatch.setattr(lines, "open_input", open_input)


@pytest.mark.parametrize(("times", "rows"), [(0, 3), (1, 3), (2, 3), (3, 0)])
def test_reading_is_tried_again(tmp_path, monkeypatch, times, rows):
    (tmp_path / "a.txt").write_text("1\n2\n3\n")
    flaky = FlakyFile(monkeypatch, times)
    source = bf.read_text(tmp_path / "a.txt")
    result = bf.map_records(int, source, executor="serial", retry=Retry(attempts=3, **AT_ONCE), chunk="1kB")
    assert len(seen(result).values) == rows
    assert [row["attempts"] for row in result.errors.to_pylist()] == ([] if rows else [3])
    assert flaky.opened == min(times + 1, 3)


def test_who_died_alone_by_an_outside_hand_is_tried_with_nothing_beside_it():
    """And is blamed only then."""

    class Suspicious(FakeExecutor):
        def submit(self, job, work):
            super().submit(job, work)
            if isinstance(work, Task) and work.alone:
                assert len(self.queue) == 1
                self.alone = [*getattr(self, "alone", []), records_of(work)]

        def wait(self, job=None, timeout=None):
            return [
                (job, one._replace(suspect=True) if getattr(one, "died", False) else one)
                for job, one in super().wait(job, timeout)
            ]

    deaths = []

    def dies(task):
        if 3 in records_of(task) or (records_of(task) == [5] and not task.alone):
            deaths.append(records_of(task))
            return True
        return False

    executor = Suspicious(3, dies=dies)
    result = bf.map_records(lambda n: n, bf.records(range(8)), executor=executor, chunk=1)
    assert seen(result).values == [0, 1, 2, 4, 5, 6, 7]
    assert result.errors["record"].to_pylist() == [4]
    assert executor.alone == [[3], [5]]
    assert deaths == [[3], [5], [3]]


def test_a_lone_record_that_memory_runs_out_for_is_blamed_the_second_time(monkeypatch):
    """The first time something else may have taken the memory of the machine."""
    monkeypatch.setattr("batchflow.jobs.fault_policy.RESPITE_SECONDS", 0.01)
    tries = Counter()

    class Watched(FakeExecutor):
        def wait(self, job=None, timeout=None):
            return [(job, self.seen(one)) for job, one in super().wait(job, timeout)]

        def seen(self, one):
            if not getattr(one, "died", False):
                return one
            return one._replace(suspect=True, failure=one.failure._replace(phase="memory"))

    def dies(task):
        [record] = records_of(task)
        tries[record] += 1
        return record == 3 or (record == 4 and tries[4] < 3)

    result = bf.map_records(lambda n: n, bf.records(range(8)), executor=Watched(3, dies=dies), chunk=1)
    assert seen(result).values == [0, 1, 2, 4, 5, 6, 7]
    [row] = result.errors.to_pylist()
    assert (row["record"], row["phase"], row["attempts"]) == (4, "memory", 3)
    assert tries == {**dict.fromkeys(range(8), 1), 3: 3, 4: 3}


def test_attempts_have_a_bound():
    executor = FakeExecutor(1, dies=lambda task: 5 in records_of(task))
    heard = []
    job = bf.Job(
        lambda n: n,
        bf.records(range(64)),
        chunk=64,
        executor=executor,
        listeners=[heard.append],
        retry=Retry(attempts=3, **AT_ONCE),
    )
    result = job.run()
    assert seen(result).values == [n for n in range(64) if n != 5]
    assert max(event.attempt for event in heard if isinstance(event, TaskEnded)) == 7  # log2(64) + 1
    assert result.errors["attempts"].to_pylist() == [7]


def test_a_batch_that_is_told_to_come_later_does():
    """Three times without being asked for, and not before the time."""
    times = []

    def fn(table):
        times.append(time.monotonic())
        if len(times) < 3:
            raise errors.RetryAfter(0.05)
        return table

    assert bf.map_batches(fn, bf.records(range(4)), executor="serial", chunk=4).values == [0, 1, 2, 3]
    assert all(later - earlier >= 0.05 for earlier, later in itertools.pairwise(times))
    assert len(times) == 3


def test_waiting_for_a_later_try_holds_up_nothing():
    """The other chunks are done first, though the one that waits comes first in the output."""
    done = []

    def fn(table):
        values = table["value"].to_pylist()
        done.append(values)
        if values == [0] and done.count([0]) == 1:
            raise FlakyError
        return table

    result = bf.map_batches(
        fn, bf.records(range(5)), executor="serial", chunk=1, retry=Retry(attempts=2, backoff=0.05, jitter=0)
    )
    assert result.values == [0, 1, 2, 3, 4]
    assert done == [[0], [1], [2], [3], [4], [0]]
