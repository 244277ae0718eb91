"""What every executor does alike: each behaviour on each of them."""

import os
import sys
import threading

import numpy as np
import pyarrow as pa
import pytest
from seen import seen

import batchflow as bf
from batchflow.core.chunks import Chunk, InputFile, Span
from batchflow.core.outcomes import Succeeded
from batchflow.core.resources import Resources
from batchflow.core.work import Task
from batchflow.io.sources.in_memory import RecordsSource
from batchflow.worker import Program


def double(x):
    return 2 * x


def run(fn, data, executor, **options):
    return bf.map_records(fn, bf.records(data), executor=executor, **options)


def told(errors):
    """Return what the error table tells of each failure, but for where and when it ran."""
    columns = ["start", "stop", "record", "payload", "phase", "error_type", "message"]
    return [tuple(row.values()) for row in errors.select(columns).to_pylist()]


# --- submit, wait, load, unload -------------------------------------------------------------------


def task(at, data):
    return Task((0, at), Chunk((Span(InputFile("records", -1), at, at + len(data)),), len(data)), 1, data)


def drained(executor, count):
    outcomes = []
    while len(outcomes) < count:
        outcomes += executor.wait()
    return outcomes


@pytest.fixture
def loaded(executor):
    """Return how to load a function as a program; all are unloaded in the end."""
    jobs = []

    def load(fn, **options):
        executor.start(executor.slots(Resources(), Resources()), Resources())
        jobs.append(executor.load(Program(fn, RecordsSource(data=None), **options)))
        return jobs[-1]

    yield load
    for job in jobs:
        executor.unload(job)


def test_each_piece_of_work_has_one_outcome(executor, loaded):
    job = loaded(double)
    for at in range(20):
        executor.submit(job, task(at, [at]))
    outcomes = drained(executor, 20)
    assert {number for number, _ in outcomes} == {job}
    got = {outcome.key: list(executor.fetch(outcome.payload).values()) for _, outcome in outcomes}
    assert got == {(0, at): [2 * at] for at in range(20)}
    assert executor.wait() == []


def test_two_programs_side_by_side(executor, loaded):
    jobs = {loaded(double): 2, loaded(lambda x: 3 * x): 3}
    for at in range(6):
        for job in jobs:
            executor.submit(job, task(at, [at]))
    for job, outcome in drained(executor, 12):
        assert list(executor.fetch(outcome.payload).values()) == [jobs[job] * outcome.key[1]]


def test_outcomes_are_kept_for_whom_they_are_for(executor, loaded):
    first, second = loaded(double), loaded(lambda x: 3 * x)
    for at in range(4):
        executor.submit(first, task(at, [at]))
        executor.submit(second, task(at, [at]))
    for job in (second, first):
        outcomes = []
        while new := executor.wait([job]):
            outcomes += new
        assert sorted((number, outcome.key) for number, outcome in outcomes) == [(job, (0, at)) for at in range(4)]
    assert executor.wait() == []


def test_a_program_that_is_unloaded_has_no_more_outcomes(executor, loaded, tmp_path):
    def hang(_):
        threading.Event().wait()

    other = loaded(double)
    if executor.name != "serial":  # which would begin it only in wait()
        job = loaded(hang)
        for at in range(4):
            executor.submit(job, task(at, [at]))
        executor.unload(job)
    for at in range(4):
        executor.submit(other, task(at, [at]))
    assert sorted(outcome.key for _, outcome in drained(executor, 4)) == [(0, at) for at in range(4)]
    assert executor.wait(timeout=0) == []


def test_unload_forgets_work_that_waits(executor, loaded):
    job = loaded(double)
    executor.submit(job, task(0, [1]))
    executor.unload(job)
    assert executor.wait() == []
    executor.unload(job)  # again


def test_outcomes_tell_of_counts_and_worker(executor, loaded):
    job = loaded(lambda x: x)
    executor.submit(job, task(5, [1, 2, None]))
    [(_, outcome)] = drained(executor, 1)
    assert isinstance(outcome, Succeeded)
    assert (outcome.stats.rows_in, outcome.stats.rows_out, outcome.stats.failed) == (3, 2, 0)
    host, _, pid = outcome.stats.worker.rpartition(":")
    assert host
    assert (int(pid) == os.getpid()) == (executor.name == "serial")


# --- jobs -----------------------------------------------------------------------------------------


def test_one_warm_executor_serves_many_jobs(executor):
    for factor in range(5):
        assert run(lambda x, factor=factor: factor * x, range(10), executor).values == [
            factor * x for x in range(10)
        ]


def test_a_job_inside_the_stream_of_another(executor):
    rows = 0
    for table in bf.stream_batches(lambda t: t, bf.records(range(40)), chunk=2, executor=executor):
        rows += table.num_rows
        assert run(lambda x: x + 1, range(20), executor, chunk=2).values == list(range(1, 21))
    assert rows == 40


def test_caps_of_a_job_hold_on_a_warm_executor(executor, tmp_path):
    """Marks its stay with a file, which no other task may find."""

    def alone(x, mark):
        file = os.open(mark, os.O_CREAT | os.O_EXCL)
        os.close(file)
        total = sum(range(20_000))
        os.unlink(mark)
        return total + x

    mark = str(tmp_path / "mark")
    result = run(alone, range(60), executor, args={"mark": mark}, limits=Resources(cpus=1), chunk=1)
    assert result.errors.num_rows == 0
    assert len(result) == 60


def test_setup_runs_once_in_each_worker(executor, tmp_path):
    def setup():
        (tmp_path / f"{os.getpid()}-{len(list(tmp_path.iterdir()))}").touch()
        return "model"

    result = run(lambda x, model: (os.getpid(), model, x)[1:], range(200), executor, setup=setup, chunk=2)
    assert result.values == [("model", x) for x in range(200)]
    names = [path.name.partition("-")[0] for path in tmp_path.iterdir()]
    assert 1 <= len(names) == len(set(names))
    assert len(names) <= 2 or executor.name == "ray"  # which changes its workers as it likes


def test_setup_that_raises_is_one_error_of_the_job(executor):
    def setup():
        raise OSError("no model")

    with pytest.raises(
        bf.errors.StoppedError, match=r"^stopped: setup=.*setup failed: OSError: no model; fix it"
    ) as caught:
        run(lambda x, _: x, range(6), executor, setup=setup, chunk=3)
    assert told(caught.value.errors) == []
    assert 'raise OSError("no model")' in "".join(caught.value.__notes__)


def test_closures_and_lambdas(executor):
    offset = 7
    names = {"a": 1}
    assert run(lambda x: x + offset + names["a"], range(5), executor).values == [x + 8 for x in range(5)]


@pytest.mark.parametrize("name", ["serial", "processes", pytest.param("ray", marks=pytest.mark.cluster)])
def test_a_script_needs_no_main_guard(script, name):
    done = script(
        """
        import sys
        import batchflow as bf

        class Point:
            def __init__(self, x):
                self.x = x
            def __eq__(self, other):
                return type(other) is type(self) and other.x == self.x

        class Call:
            def __call__(self, x):
                return shift(Point(x))

        def shift(point):
            return Point(point.x + 1)

        name = sys.argv[1]
        out = bf.map_records(shift, bf.records([Point(x) for x in range(20)]), executor=name, chunk=3)
        assert out.values == [Point(x + 1) for x in range(20)], (out.values, out.errors.to_pylist())
        assert all(type(value) is Point for value in out.values)
        out = bf.map_records(Call(), bf.records(range(5)), executor=name)
        assert out.values == [Point(x + 1) for x in range(5)]
        if name == "ray":
            import ray
            assert not ray.is_initialized()
        print("done")
        """,
        name,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_arguments_are_passed_by_name(executor):
    table = pa.table({"n": [1, 2, 3]})
    array = np.arange(100_000)

    def lookup(x, table, array, word):
        return {"n": table["n"][x].as_py(), "a": int(array[x]), "w": word}

    result = run(lookup, range(3), executor, args={"table": table, "array": array, "word": "w"})
    assert result.values == [{"n": x + 1, "a": x, "w": "w"} for x in range(3)]


def private_memory():
    """Return the bytes of memory that this process has for itself, not of any shared file."""
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) << 10 for line in file if line.startswith("Anonymous:"))


@pytest.mark.parametrize("kind", ["numpy", "table"])
def test_large_arguments_are_shared_not_copied(remote, kind):
    def make(size):
        array = np.arange(size)
        return array if kind == "numpy" else pa.table({"n": array})

    def look(_, large):
        array = large if isinstance(large, np.ndarray) else large["n"].chunk(0).to_numpy()
        return {"total": int(array.sum()), "private": private_memory()}

    nbytes = 50_000_000
    small, large = (
        run(look, range(4), remote, args={"large": make(size)}, chunk=1).values for size in (10, nbytes // 8)
    )
    assert {row["total"] for row in large} == {nbytes // 8 * (nbytes // 8 - 1) // 2}
    most = max(row["private"] for row in small)
    assert all(row["private"] - most < nbytes / 2 for row in large)


# --- functions that misbehave ---------------------------------------------------------------------


def test_what_a_function_prints_is_not_lost(script):
    done = script(
        """
        import batchflow as bf
        import sys
        bf.map_records(lambda x: sys.stdout.write(f"{x}\\n"), bf.records(range(100)), executor="processes", chunk=10)
        """
    )
    assert done.stdout == ""
    assert sorted(int(line.split("] ")[1]) for line in done.stderr.splitlines()) == list(range(100))


def test_a_function_reads_nothing_from_the_terminal(remote):
    assert run(lambda _: os.read(0, 10) == b"", [0], remote).values == [True]


def test_system_exit_is_a_failure(executor):
    def leave(x):
        if x == 3:
            raise SystemExit(5)
        return x

    result = run(leave, range(6), executor, chunk=2)
    assert seen(result).values == [0, 1, 2, 4, 5]
    assert told(result.errors) == [(3, 4, 4, "3", "call", "SystemExit", "5")]


def test_an_exception_that_cannot_be_pickled(executor):
    class StrangeError(Exception):
        def __init__(self, lock, x):
            super().__init__(f"strange {x}")
            self.lock = lock

        def __reduce__(self):
            raise TypeError("no")

    def fail(x):
        if x % 4 == 1:
            raise StrangeError(threading.Lock(), x)
        return x

    result = run(fail, range(6), executor, chunk=3)
    assert seen(result).values == [0, 2, 3, 4]
    assert told(result.errors) == [
        (1, 2, 2, "1", "call", "StrangeError", "strange 1"),
        (5, 6, 6, "5", "call", "StrangeError", "strange 5"),
    ]


def test_stop_iteration_is_a_failure(executor):
    def stop(x):
        if x == 2:
            raise StopIteration
        return x

    result = run(stop, range(5), executor)
    assert seen(result).values == [0, 1, 3, 4]
    assert [row[2:5] for row in told(result.errors)] == [(3, "2", "call")]


class Unpicklable:
    def __reduce__(self):
        raise TypeError("cannot be pickled")


class Bomb:
    """Can be pickled, but not made again."""

    def __reduce__(self):
        return _explode, ()


def _explode():
    raise RuntimeError("bomb")


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [(Unpicklable, "TypeError", "cannot be pickled"), (Bomb, "RuntimeError", "bomb")],
)
def test_a_result_that_cannot_travel_is_the_failure_of_its_record_alone(remote, kind, error, message):
    result = run(lambda x: kind() if x == 5 else [x], range(8), remote, chunk=4)
    assert seen(result).values == [[x] for x in range(8) if x != 5]
    [row] = told(result.errors)
    assert row[:6] == (5, 6, 6, "5", "convert", error)
    assert message in row[6]


def test_a_function_that_cannot_be_pickled_is_refused(remote):
    lock = threading.Lock()

    def fail(x):
        return lock, x

    with pytest.raises(bf.errors.FunctionError, match="fail cannot be shipped to a worker: cannot pickle"):
        run(fail, range(3), remote)
    assert run(double, range(3), remote).values == [0, 2, 4]


def test_program_that_cannot_be_loaded_ends_the_job(remote):
    bomb = Bomb()
    with pytest.raises(
        bf.errors.FunctionError, match=r"a worker cannot load .*: RuntimeError: bomb; make what"
    ) as caught:
        run(lambda x: (bomb, x), range(4), remote, chunk=2)
    assert "_explode" in caught.value.__notes__[0]
    assert run(double, range(3), remote).values == [0, 2, 4]


def test_records_that_cannot_travel_fail_alone(remote):
    for strange, error in [(Unpicklable, "TypeError"), (Bomb, "RuntimeError")]:
        result = run(lambda x: 1, [0, 1, strange(), 3, 4, 5], remote, chunk=2)
        assert seen(result).values == [1, 1, 1, 1, 1]
        [row] = told(result.errors)
        assert row[:2] == (2, 3)
        assert row[4:6] == ("read", error)


def test_an_error_that_is_no_exception_is_a_failure(remote):
    class OutsideError(BaseException):
        pass

    def fail(x):
        if x == 2:
            raise OutsideError("out")
        return x

    result = run(fail, range(5), remote)
    assert seen(result).values == [0, 1, 3, 4]
    assert [row[2:] for row in told(result.errors)] == [(3, "2", "call", "OutsideError", "out")]


# --- results of every kind ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "values"),
    [
        (lambda x: None, []),
        (lambda x: x, [0, 1, 2]),
        (lambda x: [x, x], [[0, 0], [1, 1], [2, 2]]),
        (lambda x: {"x": x, "y": None}, [{"x": x, "y": None} for x in range(3)]),
        (lambda x: (y for y in range(x)), [0, 0, 1]),
        (lambda x: iter([{"x": x}] * x), [{"x": 1}, {"x": 2}, {"x": 2}]),
        (lambda x: np.float32(x), [0.0, 1.0, 2.0]),
        (lambda x: np.int64(x), [0, 1, 2]),
        (lambda x: {1, x}, [{0, 1}, {1}, {1, 2}]),
        (lambda x: (x, str(x)), [(0, "0"), (1, "1"), (2, "2")]),
        (lambda x: str, [str, str, str]),
        (lambda x: {"k": [1, 2][:x]} if x else 7, None),
        (lambda x: [1, "a", x], [[1, "a", 0], [1, "a", 1], [1, "a", 2]]),
        (lambda x: 2**70 + x, [2**70, 2**70 + 1, 2**70 + 2]),
        (lambda x: "\ud800", ["\ud800"] * 3),
    ],
)
def test_results_of_every_kind(executor, fn, values):
    result = run(fn, range(3), executor)
    assert result.errors.num_rows == 0
    expected = run(fn, range(3), "serial").values
    assert result.values == expected
    assert [type(value) for value in result.values] == [type(value) for value in expected]
    if values is not None:
        assert result.values == values


def test_numpy_vectors_come_back_as_they_are(executor):
    result = run(lambda x: np.full(3, x), range(4), executor, chunk=2)
    assert [(type(value), value.tolist()) for value in result.values] == [(np.ndarray, [x] * 3) for x in range(4)]
    assert result.table["value"].to_pylist() == [[x] * 3 for x in range(4)]


def test_tables_and_objects_in_one_result(executor):
    result = run(lambda x: {x} if 3 <= x < 6 else x, range(9), executor, chunk=2)
    assert result.values == [{x} if 3 <= x < 6 else x for x in range(9)]


def test_results_of_100_mb(executor):
    result = bf.map_batches(
        lambda t: pa.table({"n": np.arange(6_250_000) + t["value"][0].as_py()}),
        bf.records(range(2)),
        executor=executor,
        chunk=1,
    )
    assert result.errors.num_rows == 0
    assert result.table.nbytes == 100_000_000
    assert result.table["n"][6_250_000].as_py() == 1
    assert result.table["n"][-1].as_py() == 6_250_000


def test_many_large_results_hold_no_files_open(executor):
    before = len(os.listdir("/proc/self/fd"))
    result = run(lambda x: "x" * 40_000, range(300), executor, chunk=1)
    assert len(result) == 300
    assert len(os.listdir("/proc/self/fd")) < before + 50


def test_records_of_every_size(executor):
    data = [b"x" * size for size in (0, 1, 4095, 4096, 32_767, 32_768, 40_000, 3_000_000)]
    assert run(len, data, executor, chunk=1).values == [len(item) for item in data]
    assert run(len, data, executor, chunk=8).values == [len(item) for item in data]


def test_records_that_are_numpy_vectors(executor):
    data = [np.full(size, size) for size in (1, 10, 100_000)]
    result = run(lambda a: int(a.sum()), data, executor)
    assert result.values == [size * size for size in (1, 10, 100_000)]


@pytest.mark.parametrize(("into", "loaded"), [("out/", True), (None, False)])
def test_what_arrow_makes_rows_with_is_loaded_once_for_all_workers(tmp_path, into, loaded):
    """Pandas, where it is installed: a fifth of a second and 40 MB in each of them, where no rows are written none."""
    into = into and f"{tmp_path}/{into}"
    result = run(lambda _: int("pandas" in sys.modules), range(8), "processes", into=into, chunk=1)
    assert set(result.values) == {int(loaded)}
