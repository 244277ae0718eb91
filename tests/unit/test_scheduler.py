"""The scheduler, case by case: attempts, halves, deaths, what listeners hear."""

import gzip
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from fake import FakeExecutor, records_of
from seen import seen

import batchflow as bf
from batchflow import errors
from batchflow.cli import main
from batchflow.core.chunk_sizing import ALONE_LEAST, ALONE_SHARE
from batchflow.core.work import CountRecords, Task
from batchflow.errors import StoppedError
from batchflow.events import ChunkSettled, JobEnded, JobStarted, TaskEnded
from batchflow.jobs.scheduler import LISTEN_SECONDS


def run(fn, data, executor, **options):
    return bf.map_records(fn, bf.records(data), executor=executor, **options)


def same(x):
    return x


def test_completion_order_inside_input_order_outside():
    executor = FakeExecutor(3, pick=lambda count: count - 1)
    assert run(same, range(30), executor, chunk=2).values == list(range(30))
    assert [work.key for work in executor.performed] != sorted(work.key for work in executor.performed)


def test_a_chunk_that_dies_is_halved():
    """Records in memory need nobody to count them."""
    executor = FakeExecutor(1, dies=lambda task: 5 in records_of(task))
    result = run(same, range(8), executor, chunk=8)
    assert seen(result).values == [0, 1, 2, 3, 4, 6, 7]
    [row] = result.errors.to_pylist()
    assert (row["record"], row["payload"], row["attempts"], row["message"]) == (6, "5", 4, "the worker died")
    done = [records_of(work) for work in executor.performed]
    assert done == [[0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3], [4, 5, 6, 7], [4, 5], [6, 7], [4], [5]]


def test_a_chunk_of_a_file_that_dies_is_inspected_and_halved(tmp_path):
    (tmp_path / "lines").write_text("a\nb\nc\nd\n")

    def window(task):
        return task.chunk.skip, task.chunk.take

    executor = FakeExecutor(1, dies=lambda task: window(task) in [(0, None), (2, 2), (2, 1)])
    result = bf.map_records(same, bf.read_text(tmp_path / "lines"), executor=executor, chunk="100B")
    assert seen(result).values == ["a", "b", "d"]
    [row] = result.errors.to_pylist()
    assert (row["record"], row["payload"], row["attempts"], row["message"]) == (3, "c", 3, "the worker died")
    done = [(type(work).__name__, *window(getattr(work, "task", work))) for work in executor.performed]
    assert done == [
        ("Task", 0, None),
        ("CountRecords", 0, None),
        ("Task", 0, 2),
        ("Task", 2, 2),
        ("CountRecords", 2, 2),
        ("Task", 2, 1),
        ("Task", 3, 1),
        ("CountRecords", 2, 1),
    ]


def test_halves_are_tried_before_new_chunks():
    executor = FakeExecutor(1, dies=lambda task: len(records_of(task)) == 4 and task.attempt == 1)
    executor.prefetch = 0
    run(same, range(8), executor, chunk=4)
    tasks = [records_of(work) for work in executor.performed if isinstance(work, Task)]
    assert tasks == [[0, 1, 2, 3], [0, 1], [2, 3], [4, 5, 6, 7], [4, 5], [6, 7]]


class Uncountable(FakeExecutor):
    """Dies of counting, too."""

    def wait(self, job=None, timeout=None):
        done = super().wait(job)
        if done and isinstance(self.performed[-1], CountRecords) and self._dies(self.performed[-1].task):
            [(job, outcome)] = done
            return [(job, outcome._replace(records=None, died=True))]
        return done


def places(result):
    return [tuple(row.values()) for row in result.errors.select(["start", "stop", "record", "phase"]).to_pylist()]


def test_a_line_that_nobody_survives_is_found_by_cutting_the_file(tmp_path):
    (tmp_path / "a.txt").write_text("a\nbb\nccc\ndd\ne\n")
    executor = Uncountable(1, dies=lambda task: task.chunk.spans[0].start <= 5 < (task.chunk.spans[0].stop or 99))
    result = bf.map_records(same, bf.read_text(tmp_path / "a.txt"), executor=executor, chunk="1kB")
    assert seen(result).values == ["a", "bb", "dd", "e"]
    assert places(result) == [(5, 6, 3, "worker")]
    assert (
        sum(isinstance(work, CountRecords) for work in executor.performed) == 3
    )  # of the whole chunk, three times


def test_a_file_that_nobody_survives_is_not_cut_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("batchflow.jobs.fault_policy.UNCOUNTED", 5)
    (tmp_path / "a.txt").write_text("a\n" * 1000)
    (tmp_path / "b.txt").write_text("b\n" * 3)
    executor = Uncountable(1, dies=lambda task: any("a.txt" in span.input.uri for span in task.chunk.spans))
    source = bf.read_text([tmp_path / "b.txt", tmp_path / "a.txt"])
    result = bf.map_records(same, source, executor=executor, chunk="10kB")
    assert seen(result).values == ["b", "b", "b"]
    lost = [(start, stop) for start, stop, _, _ in places(result)]
    assert (lost[0][0], lost[-1][1]) == (0, 2000)
    assert all(one[1] == two[0] for one, two in pairwise(lost))
    assert len(lost) <= 12


def test_one_error_too_many_stops_and_gives_up_the_rest():
    executor = FakeExecutor(2)
    with pytest.raises(StoppedError, match=r"more than max_errors=1 failed; 2 records failed"):
        run(lambda x: 1 // (x % 5), range(1000), executor, chunk=1, max_errors=1)
    assert executor.queue == []
    assert len(executor.performed) < 20


def test_listeners_hear_everything_in_order():
    heard = []
    job = bf.Job(
        fn=same,
        source=bf.records(range(6)),
        chunk=2,
        listeners=[heard.append],
        executor=FakeExecutor(2, pick=lambda count: count - 1, dies=lambda task: records_of(task) == [2, 3]),
    )
    assert job.run().values == list(range(6))
    assert isinstance(heard[0], JobStarted)
    assert isinstance(heard[-1], JobEnded)
    assert heard[-1].complete
    settled = [event.key for event in heard if isinstance(event, ChunkSettled)]
    assert settled == sorted(settled) == [(0, 0), (0, 2, 0), (0, 2, 1), (0, 4)]
    again = [event.key for event in heard if isinstance(event, TaskEnded) and event.again]
    assert again == [(0, 2)]
    assert sum(isinstance(event, TaskEnded) for event in heard) == 5


class Slow(FakeExecutor):
    """Takes a second for each record, as it tells, or half of that where nothing runs beside it."""

    def wait(self, job=None, timeout=None):
        beside = len(self.queue) > 1
        [(number, outcome)] = super().wait(job, timeout)
        seconds = outcome.stats.rows_in * (1.0 if beside else 0.5)
        return [(number, outcome._replace(stats=outcome.stats._replace(seconds=seconds)))]


def test_one_chunk_of_a_long_job_runs_alone():
    seen = []
    result = bf.Job(fn=same, source=bf.records(range(5000)), executor=Slow(2), listeners=[seen.append]).run()
    assert result.values == list(range(5000))
    ended = [event for event in seen if isinstance(event, TaskEnded)]
    [alone] = [event for event in ended if event.alone]
    before = ended[: ended.index(alone)]
    assert [event.weight for event in before] == [4] * 4  # as many as were sent before one came back
    assert alone.weight <= ALONE_SHARE * 5000
    assert result.report.over_one == 0.5 * 5000 / result.report.seconds  # alone one does a record in half a second
    assert f", {result.report.over_one:.1f} times as fast as one alone, " in str(result.report)


def test_none_does_where_the_next_chunk_may_be_a_file_that_cannot_be_cut(tmp_path):
    (tmp_path / "a.txt").write_text("x\n" * 5000)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"x\n" * 50))
    for pattern, count in (("*.txt", 1), ("*", 0)):
        seen = []
        source = bf.read_text(f"{tmp_path}/{pattern}")
        bf.Job(fn=same, source=source, executor=Slow(2), chunk="4B", listeners=[seen.append]).run()
        assert sum(event.alone for event in seen if isinstance(event, TaskEnded)) == count


class Warming(Slow):
    """Takes a hundred times as long for its first four tasks."""

    def wait(self, job=None, timeout=None):
        [(number, outcome)] = super().wait(job, timeout)
        stats = outcome.stats
        seconds = stats.seconds if len(self.performed) <= 4 else stats.seconds / 100
        return [(number, outcome._replace(stats=stats._replace(seconds=seconds)))]


def test_another_one_does_where_the_first_was_over_too_soon_to_tell():
    seen = []
    source = bf.records(range(20_000))
    result = bf.Job(fn=same, source=source, executor=Warming(2), listeners=[seen.append]).run()
    alone = [event.stats.seconds for event in seen if isinstance(event, TaskEnded) and event.alone]
    assert all(seconds < ALONE_LEAST for seconds in alone[:-1])
    assert (len(alone) > 1, alone[-1] >= ALONE_LEAST) == (True, True)
    assert result.report.over_one == pytest.approx(0.005 * 20_000 / result.report.seconds)


@pytest.mark.parametrize(("count", "options"), [(500, {}), (5000, {"chunk": 1000})])
def test_none_does_where_it_would_show(count, options):
    seen = []
    source = bf.records(range(count))
    report = bf.Job(fn=same, source=source, executor=Slow(2), listeners=[seen.append], **options).run().report
    assert not any(event.alone for event in seen if isinstance(event, TaskEnded))
    assert report.over_one is None
    assert "as one alone" not in str(report)


def test_an_unordered_stream_gives_each_chunk_when_it_is_done():
    """However long the first one takes."""
    executor = FakeExecutor(2, pick=lambda count: count - 1)
    stream = bf.stream_batches(
        same, bf.records(range(40)), per="record", ordered=False, chunk=1, executor=executor
    )
    rows = []
    for done, table in enumerate(stream, start=1):
        rows += table["value"].to_pylist()
        assert len(executor.performed) <= done + 1
    assert sorted(rows) == list(range(40))
    assert rows[0] != 0


class Measured(FakeExecutor):
    """Tells how many results were out of the scheduler's hands at most; the first chunk is done last."""

    def __init__(self, slots, size):
        super().__init__(slots, pick=lambda count: count - 1)
        self.size = size
        self.done = 0
        self.drawn = 0

    def submit(self, job, work):
        super().submit(job, work)
        self.drawn += 1


@pytest.mark.parametrize(("memory", "most"), [(None, 40), ("10kB", 14)])
def test_what_waits_to_be_combined_is_bounded_by_the_memory_of_the_job(memory, most):
    """Chunks behind one that takes long are not begun once the rows that wait for it are too many."""
    drawn_when_first_ended = []
    executor = Measured(2, 1000)

    def heard(event):
        if isinstance(event, TaskEnded) and event.key == (0, 0):
            drawn_when_first_ended.append(executor.drawn)

    job = bf.Job(
        lambda n: "x" * 1000,
        bf.records(range(40)),
        chunk=1,
        executor=executor,
        listeners=[heard],
        limits=bf.Resources(memory=memory),
    )
    assert job.run().values == ["x" * 1000] * 40
    [drawn] = drawn_when_first_ended
    assert drawn <= most
    assert memory is not None or drawn == 40


def test_tables_that_wait_for_their_neighbours_count_too():
    executor = FakeExecutor(2)
    result = bf.map_records(
        lambda n: "x" * 1000,
        bf.records(range(40)),
        chunk=1,
        executor=executor,
        limits=bf.Resources(memory="3kB"),
        combine=lambda table: table,
    )
    assert result.values == ["x" * 1000] * 40


def test_combining_that_loses_its_worker_is_done_again():
    from batchflow.core.work import CombineTables
    from batchflow.worker import lost

    class Mortal(FakeExecutor):
        deaths = 0

        def wait(self, job=None, timeout=None):
            for at, (number, work) in enumerate(self.queue):
                if isinstance(work, CombineTables) and self.deaths < self.mortal:
                    self.deaths += 1
                    del self.queue[at]
                    return [(number, lost(work, "worker", errors.WorkerDied("died")))]
            return super().wait(job, timeout)

    for deaths in (2, 3):
        executor = Mortal(2)
        executor.mortal = deaths
        job = bf.Job(lambda n: n, bf.records(range(9)), chunk=1, combine=lambda table: table, executor=executor)
        if deaths == 2:
            assert job.run().values == list(range(9))
        else:
            with pytest.raises(errors.BatchflowError, match="combine= failed: WorkerDied: died"):
                job.run()


def test_a_function_that_ends_every_worker_is_given_up():
    """And not tried with each of a million records."""
    executor = FakeExecutor(2, dies=lambda task: True)
    with pytest.raises(errors.ExecutorError, match=r"the first 100 tasks all broke off, .* no record's"):
        run(same, range(1_000_000), executor, chunk=1000)
    assert len(executor.performed) < 500


def test_tasks_that_all_break_off_are_given_up():
    from batchflow.worker import lost

    class Slow(FakeExecutor):
        def wait(self, job=None, timeout=None):
            job, work = self.queue.pop(0)
            self.performed.append(work)
            return [(job, lost(work, "timeout", TimeoutError("too long")))]

    executor = Slow(2)
    message = "first 100 tasks all broke off, the last one so: TimeoutError: too long; it is"
    with pytest.raises(errors.ExecutorError, match=message):
        bf.map_records(lambda x: x, bf.records(range(1_000_000)), executor=executor)
    assert len(executor.performed) < 500


def test_failures_without_end_are_no_reason_to_give_up_a_retry(tmp_path):
    """The job has succeeded before."""
    job = bf.Job(lambda n: {"x": n}, bf.records(range(200)), chunk=1, into=f"{tmp_path}/out/", version="1")
    dies = FakeExecutor(2, dies=lambda task: task.key[1] > 0)
    assert replace(job, executor=dies).run().errors.num_rows == 199
    dies = FakeExecutor(2, dies=lambda task: True)
    assert replace(job, executor=dies, version="2").retry_failed().errors.num_rows == 199
    assert replace(job, executor=FakeExecutor(), version="3").retry_failed().values == [
        {"x": n} for n in range(200)
    ]


@pytest.mark.parametrize("into", ["out/", "out.parquet"])
def test_a_chunk_that_breaks_off_when_it_is_done_once_more_is_halved(tmp_path, into):
    """What is kept of it is in its place; the record at fault is alone."""
    executor = FakeExecutor(2, dies=lambda task: task.schema is not None and 6 in records_of(task))
    result = run(lambda n: {"x": "a" if n == 4 else n}, range(12), executor, chunk=4, into=f"{tmp_path}/{into}")
    assert [row["x"] for row in seen(result).values] == [0, 1, 2, 3, 5, 7, 8, 9, 10, 11]
    assert result.errors.select(["record", "phase", "error_type"]).to_pylist() == [
        {"record": 5, "phase": "convert", "error_type": "SchemaError"},
        {"record": 7, "phase": "worker", "error_type": "WorkerDied"},
    ]
    assert (result.report.rows_in, result.report.rows_out, result.report.failed) == (12, 10, 2)
    again = run(
        lambda n: {"x": "a" if n == 4 else n}, range(12), FakeExecutor(), chunk=4, into=f"{tmp_path}/{into}"
    )
    assert (seen(again).values, again.errors) == (seen(result).values, result.errors)
    assert main(["verify", f"{tmp_path}/{into}"]) == 0


def test_a_try_that_is_due_makes_nobody_spin_where_no_slot_is_free():
    patience = []

    class Slow(FakeExecutor):
        def wait(self, job=None, timeout=None):
            if records_of(self.queue[0][1]) == [1] and len(patience) < 3:
                patience.append(timeout)
                time.sleep(0.02)
                return []
            return super().wait(job, timeout)

    calls = []

    def fn(table):
        calls.append(table["value"].to_pylist())
        if calls == [[0]]:
            raise OSError
        return table

    executor = Slow(1)
    executor.prefetch = 0
    retry = bf.Retry(attempts=2, backoff=0.01)
    assert bf.map_batches(fn, bf.records(range(2)), executor=executor, chunk=1, retry=retry).values == [0, 1]
    assert calls == [[0], [1], [0]]
    assert patience == [LISTEN_SECONDS] * 3


@pytest.mark.parametrize(
    ("options", "most"), [({}, 4), ({"concurrency": 5}, 2), ({"concurrency": 5, "chunk": 9}, 4)]
)
def test_chunks_of_calls_that_wait_are_not_sized_before_anything_is_known(options, most):
    """They are long, so nothing is gained by one that waits beside each that runs."""
    executor = FakeExecutor(2)
    assert run(same, range(1000), executor, **options).values == list(range(1000))
    assert executor.most == most
