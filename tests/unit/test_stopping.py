"""A job of which nothing succeeds stops: its setup= raises, or the function fails for all of the first 1,000 records."""

import itertools
import os
import threading

import pytest
from fake import FakeExecutor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import batchflow as bf
from batchflow.cli import main
from batchflow.errors import ChangedError, StoppedError
from batchflow.jobs import run as running
from batchflow.jobs import setup_failures
from batchflow.worker import task as run


def no_licence():
    raise RuntimeError("no licence")


def keep(x, _=None):
    return {"x": x}


def refuse(x, _=None):
    raise ValueError(x)


@pytest.mark.parametrize("count", [3, 3000])
@pytest.mark.parametrize("into", [None, "out/"])
@pytest.mark.parametrize("verb", [bf.map_records, bf.map_batches])
def test_setup_that_raises_stops_the_job_and_fails_no_record(executor, tmp_path, into, verb, count):
    into = into and f"{tmp_path}/{into}"
    with pytest.raises(
        StoppedError, match=r"setup=test_stopping.no_licence failed: RuntimeError: no licence"
    ) as stopped:
        verb(keep, bf.records(range(count)), setup=no_licence, into=into, executor=executor)
    assert stopped.value.errors.num_rows == 0
    assert stopped.value.reason == "setup"
    assert "in no_licence" in stopped.value.__notes__[0]
    assert "batchflow/" not in stopped.value.__notes__[0].replace("tests/", "")


def test_fixed_setup_resumes_an_output_of_which_nothing_is_done(executor, tmp_path):
    with pytest.raises(StoppedError, match="run the same again, which resumes"):
        bf.map_records(keep, bf.records(range(9)), setup=no_licence, into=f"{tmp_path}/o/", executor=executor)
    result = bf.map_records(keep, bf.records(range(9)), setup=dict, into=f"{tmp_path}/o/", executor=executor)
    assert result.values == [{"x": x} for x in range(9)]
    with pytest.raises(ChangedError):
        bf.map_records(keep, bf.records(range(9)), setup=list, into=f"{tmp_path}/o/", executor=executor)


def test_setup_that_raises_keeps_what_was_done(tmp_path, executor):
    """The same command resumes behind it."""
    note = tmp_path / "broken"

    def connect():
        if note.exists():
            raise RuntimeError("no database")

    def job(source):
        return bf.Job(keep, source, setup=connect, into=f"{tmp_path}/out/", executor=executor)

    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("1\n2\n")
    job(bf.read_text(tmp_path / "in")).run()
    note.touch()
    (tmp_path / "in/b.txt").write_text("3\n")
    with pytest.raises(StoppedError, match="no database"):
        job(bf.read_text(tmp_path / "in")).run()
    note.unlink()
    assert job(bf.read_text(tmp_path / "in")).run().values == [{"x": "1"}, {"x": "2"}, {"x": "3"}]


def test_setup_that_works_on_other_workers_costs_no_record(tmp_path):
    """Which of two workers comes first does not matter."""

    def run(broken, order):
        calls = itertools.count()

        def setup():
            if next(calls) in broken:
                raise RuntimeError("no GPU here")

        picks = iter(order)
        executor = FakeExecutor(2, lambda count: next(picks, 0) % count)
        return bf.map_records(keep, bf.records(range(20)), setup=setup, executor=executor, chunk=1)

    for broken, order in itertools.product(({0}, {0, 1}), ((), (1,), (1, 1, 0))):
        result = run(broken, order)
        assert result.errors.num_rows == 0
        assert [row["x"] for row in result.values] == list(range(20))


def test_setup_that_fails_again_and_again_on_one_worker_stops_the_job(monkeypatch):
    """Though it worked on another one."""
    monkeypatch.setattr(setup_failures, "_DELAY", 0.0)

    class Half(FakeExecutor):
        """The worker of chunks behind the tenth is broken."""

        def wait(self, job=None, timeout=None):
            job, work = self.queue.pop(0)
            broken = hasattr(work, "attempt") and work.key[1] >= 10
            runner = self._runners[job]
            runner._state = runner._state if not broken else type(runner)(runner._program)._state
            self.broken = broken
            return [(job, runner.perform(work))]

    executor = Half(1)

    def setup():
        if executor.broken:
            raise RuntimeError("no GPU here")

    with pytest.raises(
        StoppedError, match=r"failed on \S+, though it works on other workers: RuntimeError: no GPU"
    ):
        bf.map_records(keep, bf.records(range(20)), setup=setup, executor=executor, chunk=1)


def test_setup_that_fails_at_first_is_tried_again_as_retry_says(executor, tmp_path):
    def setup():
        try:
            os.close(os.open(tmp_path / f"note-{os.getpid()}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        raise ConnectionError("not yet")

    retry = bf.Retry(attempts=3, backoff=0)
    result = bf.map_records(keep, bf.records(range(9)), setup=setup, retry=retry, executor=executor)
    assert result.errors.num_rows == 0
    assert [row["x"] for row in result.values] == list(range(9))


def hang():
    threading.Event().wait()


def test_setup_that_hangs_stops_the_job(remote):
    with pytest.raises(StoppedError, match=r"setup=.* failed: TimeoutError"):
        bf.map_records(keep, bf.records(range(3)), setup=hang, timeout=0.3, executor=remote)


def interrupt():
    raise KeyboardInterrupt


def test_setup_that_raises_keyboard_interrupt_stops_the_job(remote):
    with pytest.raises(StoppedError, match=r"setup=.* failed: KeyboardInterrupt") as caught:
        bf.map_records(keep, bf.records(range(8)), setup=interrupt, executor=remote, chunk=1)
    assert caught.value.errors.num_rows == 0


async def refuse_async():
    raise RuntimeError("no licence")


async def keep_async(x, _):
    return {"x": x}


def test_async_setup_that_raises_stops_the_job(executor):
    with pytest.raises(StoppedError, match="no licence"):
        bf.map_records(keep_async, bf.records(range(3)), setup=refuse_async, executor=executor)


def test_setup_that_raises_in_a_retry_leaves_the_output_as_it_was(tmp_path, executor):
    def job(setup, fn=keep):
        return bf.Job(fn, bf.records(range(4)), setup=setup, into=f"{tmp_path}/o/", executor=executor, version="1")

    def odd(x, _):
        if x % 2:
            raise ValueError(x)
        return {"x": x}

    job(dict, odd).run()
    with pytest.raises(StoppedError, match="no licence"):
        job(no_licence).retry_failed()
    result = job(dict).retry_failed()
    assert result.errors.num_rows == 0
    assert [row["x"] for row in result.values] == list(range(4))


# --- the first 1,000 records ----------------------------------------------------------------------


@pytest.mark.parametrize("verb", [bf.map_records, bf.map_batches])
def test_all_of_the_first_records_failed_stops_the_job(executor, verb):
    with pytest.raises(
        StoppedError, match=r"all of the first 1,000 records failed; .*record 1: ValueError"
    ) as stopped:
        verb(refuse, bf.records(range(100_000)), executor=executor)
    assert stopped.value.reason == "all_failed"
    assert 1000 <= stopped.value.errors.num_rows < 100_000


def test_fewer_records_that_all_fail_end_the_job(executor):
    result = bf.map_records(refuse, bf.records(range(999)), executor=executor)
    assert (result.errors.num_rows, result.report.complete) == (999, True)


@pytest.mark.parametrize("limit", [5000, 1.0])
def test_max_errors_that_allows_it_ends_the_job(limit):
    result = bf.map_records(refuse, bf.records(range(1500)), executor="serial", max_errors=limit)
    assert result.errors.num_rows == 1500


@pytest.fixture
def few(monkeypatch):
    """Stop after ten records."""
    monkeypatch.setattr(running, "LEADING", 10)
    monkeypatch.setattr(run, "LEADING", 10)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(5, 15),
    st.integers(1, 15),
    st.data(),
    st.sampled_from([bf.map_records, bf.map_batches]),
    st.booleans(),
)
def test_stop_depends_on_the_records_alone(few, tmp_path_factory, bad, chunk, data, verb, blank):
    """Neither the cut nor the order of completion decides, nor do blank lines count."""
    folder = tmp_path_factory.mktemp("in")
    lines = [f'{{"n": {n}}}\n' + ("\n" if blank and n % 3 == 0 else "") for n in range(40)]
    (folder / "a.jsonl").write_text("".join(lines))

    def fn(record):
        if record["n"] < bad:
            raise ValueError(record)
        return record

    def batch(table):
        return {"n": [fn(record)["n"] for record in table.to_pylist()]}

    executor = FakeExecutor(3, lambda count: data.draw(st.integers(0, count - 1)))
    job = bf.Job(
        batch if verb is bf.map_batches else fn,
        bf.read_json(folder),
        per="batch" if verb is bf.map_batches else "record",
        chunk=chunk,
        executor=executor,
    )
    if bad >= 10:
        with pytest.raises(StoppedError):
            job.run()
    else:
        assert job.run().errors.num_rows == bad


def test_next_run_after_such_a_stop_tries_other_records(tmp_path):
    """What was done is not counted again, or the same command could never get past it."""
    job = bf.Job(refuse, bf.records(range(10_000)), into=f"{tmp_path}/o/", chunk=100, executor="serial")
    failed = []
    for _ in range(2):
        with pytest.raises(StoppedError) as stopped:
            job.run()
        failed.append(stopped.value.errors.num_rows)
    assert failed == [1000, 2000]


@pytest.mark.parametrize("verb", [bf.map_records, bf.map_batches])
def test_retry_whose_first_records_all_fail_again_stops(few, tmp_path, executor, verb):
    """The output stays as it was; with max_errors= all of them are tried."""

    def job(refused, version, **options):
        def fn(record):
            if record["n"] % 2 and record["n"] < refused:
                raise ValueError(record)
            return record

        def batch(table):
            return {"n": [fn(record)["n"] for record in table.to_pylist()]}

        chosen = {"fn": batch, "per": "batch"} if verb is bf.map_batches else {"fn": fn}
        source = bf.read_json(tmp_path / "in.jsonl")
        return bf.Job(
            source=source, into=f"{tmp_path}/o/", executor=executor, version=version, **chosen, **options
        )

    (tmp_path / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(60)))
    assert job(60, "1").run().errors.num_rows == 30
    why = r"^stopped: all of the first 1,?0 records failed again; .*in.jsonl: ValueError: .*; the output is unchanged: fix"
    with pytest.raises(StoppedError, match=why) as stopped:
        job(25, "2").retry_failed()
    assert stopped.value.reason == "all_failed"
    assert stopped.value.errors.num_rows >= 10
    assert main(["verify", f"{tmp_path}/o/"]) == 0
    assert job(25, "2", max_errors=12).retry_failed().errors.num_rows == 12
    assert job(15, "3").retry_failed().errors.num_rows == 7


def test_retry_over_max_errors_stops(tmp_path):
    def job(version, refused, limit):
        def fn(n):
            if n in refused:
                raise ValueError(n)
            return {"n": n}

        source = bf.records(range(10))
        return bf.Job(fn, source, into=f"{tmp_path}/o/", executor="serial", version=version, max_errors=limit)

    job("1", {1, 5, 7}, 3).run()
    for limit in (1, 0.15):
        with pytest.raises(StoppedError, match=rf"^stopped: more than max_errors={limit} failed; ") as stopped:
            job("2", {5, 7}, limit).retry_failed()
        assert stopped.value.reason == "max_errors"
    for limit in (2, 0.2):
        assert job("2", {5, 7}, limit).retry_failed().errors.num_rows == 2


def test_stopped_retry_prints_the_command_that_follows(few, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steps.py").write_text("def clean(line):\n    return {'n': int(line)}\n")
    (tmp_path / "in.txt").write_text("1\n0x1\n" * 12)
    assert main(["run", "steps.py:clean", "in.txt", "--into", "o/", "--executor", "serial"]) == 1
    for options in ([], ["--max-errors", "5"]):
        capsys.readouterr()
        assert main(["retry", "o/", "--executor", "serial", *options]) == 3
        line = capsys.readouterr().err.rpartition("\nnext: ")[2].strip()
        look, _, then = line.partition("; once fixed, ")
        assert main(look.split()[1:]) == 1
        assert main(then.split()[1:]) == (1 if options else 3)


def test_stopped_command_prints_the_command_that_follows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "steps.py").write_text(
        "import os\n"
        "def clean(line):\n    return {'n': int(line)}\n"
        "def connect():\n    os.environ['DATABASE']\n"
        "def store(line, _):\n    return {'n': line}\n"
    )
    (tmp_path / "in.txt").write_text("x\n" * 1200)
    (tmp_path / "few.txt").write_text("1\nx\n")

    def stopped(command):
        assert main([*command.split(), "--executor", "serial"]) == 3
        return capsys.readouterr().err.rpartition("\nnext: ")[2].strip()

    def follow(line):
        look, _, then = line.rpartition("; once fixed, ")
        if look:
            assert main(look.split()[1:]) == 1
        return main(then.split()[1:])

    line = stopped("run steps.py:clean in.txt --into a/")
    assert line == (
        "batchflow errors a/ --all; once fixed, batchflow run steps.py:clean in.txt --into a/ --executor serial --fresh"
    )
    (tmp_path / "in.txt").write_text("1\n" * 1200)
    assert follow(line) == 0
    line = stopped("run steps.py:clean few.txt --into b/ --max-errors 0")
    assert follow(line) == 1
    line = stopped("run steps.py:store few.txt --into c/ --setup steps.py:connect")
    monkeypatch.setenv("DATABASE", "there")
    assert follow(line) == 0
    assert main(["verify", "c/"]) == 0
