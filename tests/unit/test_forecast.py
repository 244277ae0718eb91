"""What a plan foretells: mistakes that would cost an hour come first, then time and memory, told by a sample."""

import gzip
import json
import os
import threading
import time
from functools import partial

import pytest

import batchflow as bf
from batchflow.cli import main
from batchflow.core.chunks import Chunk, InputFile, Span
from batchflow.core.outcomes import Stats
from batchflow.io.sources.base import KeyedChunk
from batchflow.jobs.planner import make_plan
from batchflow.jobs.trials import dry_run as trying
from batchflow.jobs.trials import forecast as forecasts
from batchflow.plan import JobSpec


@pytest.fixture
def text(tmp_path):
    (tmp_path / "in").mkdir()
    for name in range(4):
        (tmp_path / f"in/{name}.txt").write_text("".join(f"{name} {line:06}\n" for line in range(2000)))
    return bf.read_text(tmp_path / "in")


def job(fn, source, **options):
    return bf.Job(fn, source, executor="processes", **options)


def ended(weight, seconds, compression=None):
    chunk = Chunk((Span(InputFile("a", 9, "", compression)),), weight)
    return trying.TaskEnded((0,), 1, weight, Stats(seconds=seconds), ok=True, again=False, chunk=chunk)


def pause(_):
    time.sleep(0.005)


class TestProblems:
    def test_a_function_that_cannot_be_shipped_comes_first_and_nothing_runs(self, text):
        lock = threading.Lock()
        told = job(lambda line: lock, text).forecast()
        assert told.refused
        assert "cannot be shipped to a worker" in told.problems[0]
        assert str(told).startswith("problem   ")
        assert "input     text: 4 files" in str(told)
        assert told.trial is None

    def test_rows_that_do_not_go_together_anywhere_in_the_input(self, text, tmp_path):
        def drifts(line):
            return {"n": 1 if line[0] < "3" else "one"}

        told = job(drifts, text, into=str(tmp_path / "out.parquet")).forecast()
        (problem,) = told.problems
        assert problem.startswith("in the sample rows do not go together in one table, ")
        assert "SchemaError in convert: " in problem
        assert "3.txt: column 'n' is string" in problem
        assert sorted(os.listdir(tmp_path)) == ["in"]

    def test_an_output_that_cannot_be_written(self, text, tmp_path, monkeypatch):
        def full(**_):
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr("batchflow.jobs.trials.sampling.tempfile.mkdtemp", full)
        told = job(len, text, into=str(tmp_path / "out/") + "/").forecast()
        assert told.problems == (f"cannot write to {tmp_path}/out/: Read-only file system in {tmp_path}",)

    def test_a_sample_of_which_nothing_is_left(self, text):
        def fail(line):
            raise ValueError(line)

        told = job(fail, text).forecast(100)
        assert "records of the sample failed" in told.problems[0]
        assert "ValueError in call: " in told.problems[0]
        assert ", record" not in told.problems[0]

    def test_records_that_never_end_are_given_up(self, monkeypatch):
        monkeypatch.setattr(trying, "PATIENCE", 0.2)
        told = job(lambda _: time.sleep(60), bf.records(range(100))).forecast(8)
        assert "TimeoutError in timeout" in told.problems[0]
        assert told.seconds is None

    def test_rows_that_do_not_fit_into_memory(self, monkeypatch):
        monkeypatch.setattr(forecasts, "total_memory", lambda: 200_000_000)
        told = job(lambda _: "x" * 10_000, bf.records(range(100_000))).forecast(50)
        assert "write the result with into=" in told.problems[0]
        assert told.memory > 1_000_000_000

    def test_tasks_that_come_near_to_their_cap(self):
        tight = bf.Resources(memory="300MB")
        told = job(lambda _: len(b"x" * 292_000_000), bf.records(range(100)), per_task=tight).forecast(8)
        assert any("raise per_task memory" in line for line in told.advice)

    def test_a_healthy_job_has_none(self, text, tmp_path):
        told = job(len, text, into=str(tmp_path / "out/") + "/").forecast()
        assert told.problems == ()
        assert sorted(os.listdir(tmp_path)) == ["in"]


class TestSample:
    def test_it_is_spread_and_short_and_tells_the_time(self, text):
        calls = job(pause, text).forecast()
        report = calls.trial.report
        assert 4 <= report.rows_in < 400
        assert report.time["call"] < 10 * trying.SECONDS
        assert calls.trial.spread
        assert calls.seconds - calls.trial.start == pytest.approx(8000 * 0.005 / calls.slots, rel=0.6)

    def test_time_is_told_by_the_largest_pieces(self):
        budget = trying._SampleBudget()
        for weight, seconds in ((1, 5.0), (1, 0.01), (1, 0.01), (64, 0.08), (64, 0.12)):
            budget(ended(weight, seconds))
        assert budget.rates == {False: pytest.approx(0.2 / 128)}

    def test_what_the_first_task_loads_is_told_once(self):
        budget = trying._SampleBudget()
        for weight, seconds in ((1, 0.5), (64, 0.08), (64, 0.12)):
            budget(ended(weight, seconds))
        assert budget.loading == pytest.approx(0.5 - 0.2 / 128)
        assert trying._SampleBudget().loading == 0

    def test_the_start_of_workers_is_part_of_the_time(self, tmp_path):
        told = job(lambda row, _: row, bf.records([[1]] * 100), setup=partial(time.sleep, 0.4)).forecast()
        assert told.trial.start >= 0.4
        assert told.seconds >= told.trial.start

    def test_compressed_files_are_told_by_themselves(self):
        budget = trying._SampleBudget()
        for weight, seconds, compression in ((64, 0.1, None), (64, 0.1, None), (8, 0.2, "gz"), (8, 0.2, "gz")):
            budget(ended(weight, seconds, compression))
        assert budget.rates == {False: pytest.approx(0.1 / 64), True: pytest.approx(0.2 / 8)}
        chunk = Chunk((Span(InputFile("a", 9)),), 200)
        assert not budget.allows(KeyedChunk((0,), chunk))  # 0.1 s are spent, and it would take 0.3 s more
        assert budget.allows(
            KeyedChunk((0,), chunk._replace(weight=2, spans=(Span(InputFile("a.gz", 9, "", "gz")),)))
        )

    def test_time_of_plain_and_compressed_files_together(self, tmp_path):
        lines = "".join(f"{'x' * 200} {n}\n" for n in range(1000)).encode()
        for name in range(5):
            (tmp_path / f"{name}.txt").write_bytes(lines)
        (tmp_path / "5.txt.gz").write_bytes(gzip.compress(lines))
        told = job(lambda _: time.sleep(0.001), bf.read_text(tmp_path)).forecast()
        assert told.seconds - told.trial.start == pytest.approx(6000 * 0.00115 / told.slots, rel=0.5)

    def test_as_many_records_as_were_asked_for_at_most(self):
        told = job(str, bf.records(range(10**6))).forecast(100)
        assert 50 <= told.trial.report.rows_in <= 100

    @pytest.mark.parametrize("sizes", [[48], [3, 5, 0, 8], [2000], [100_000], [40_000, 7, 300], [900] * 40])
    def test_no_record_is_called_twice(self, tmp_path, sizes):
        for name, size in enumerate(sizes):
            (tmp_path / f"{name:03}.txt").write_text("".join(f"{name}-{n}\n" for n in range(size)))
        source = bf.read_text(tmp_path)
        pieces, spread = trying._pieces(make_plan(JobSpec(str, source)), 5000)
        records = [record for piece in pieces for block in source.read(piece.chunk) for record in block.rows]
        assert spread
        assert 0 < len(records) == len(set(records))
        assert len(records) >= min(sum(sizes) / 20, 1500)

    @pytest.mark.parametrize("files", [1, 5])
    def test_a_part_of_each_compressed_file_tells_of_all_of_it(self, tmp_path, files):
        lines = "".join(f"{'x' * (n % 90)} {n}\n" for n in range(2000)).encode()
        for name in range(files):
            (tmp_path / f"{name}.txt.gz").write_bytes(gzip.compress(lines))
        source = bf.read_text(tmp_path)
        pieces, spread = trying._pieces(make_plan(JobSpec(str, source)), 5000)
        records = [record for piece in pieces for block in source.read(piece.chunk) for record in block.rows]
        assert len(records) >= 70 * files
        assert max(records.count(record) for record in set(records)) <= files  # once of each
        assert spread is (files > 1)
        told = job(pause, source).forecast()
        assert told.trial.report.rows_in < 200
        assert told.trial.report.task_seconds < 20 * trying.SECONDS
        alone = 2000 * 0.005
        assert told.seconds - told.trial.start == pytest.approx(max(alone, files * alone / told.slots), rel=0.6)

    def test_time_of_records_in_many_tiny_files(self, tmp_path):
        for name in range(40):
            (tmp_path / f"{name}.txt").write_text("a\nb\n")
        told = job(lambda _: time.sleep(0.01), bf.read_text(tmp_path)).forecast()
        assert told.seconds - told.trial.start == pytest.approx(0.8 / told.slots, rel=0.6)

    def test_nothing_is_run_where_nothing_is_asked_for(self, text, tmp_path):
        def touch(_):
            (tmp_path / "touched").touch()

        assert job(touch, text).forecast(0).trial is None
        assert job(touch, text).plan().explain() == str(job(touch, text).forecast(0))
        assert not (tmp_path / "touched").exists()

    def test_a_generator_is_not_begun(self):
        numbers = iter(range(10))
        assert job(str, bf.records(numbers)).forecast().trial is None
        assert next(numbers) == 0

    def test_one_file_that_cannot_be_cut_is_what_the_job_waits_for(self, tmp_path):
        (tmp_path / "huge.gz").write_bytes(gzip.compress("".join(f"{n}\n" for n in range(60)).encode()))
        told = job(pause, bf.read_text(tmp_path), limits=bf.Resources(cpus=2)).forecast()
        if told.slots > 1:
            assert "huge.gz takes one worker all of that" in str(told)

    def test_a_large_csv_file_is_looked_at_from_its_beginning_only(self, tmp_path, monkeypatch):
        (tmp_path / "in.csv").write_text("n\n" + "1\n" * 20_000)
        monkeypatch.setattr(trying, "LOOK_SECONDS", 0.0)
        told = job(str, bf.read_csv(tmp_path / "in.csv")).forecast(10)
        assert not told.trial.spread
        assert "records from the beginning of the input" in str(told)
        assert told.trial.report.rows_in >= 1

    def test_a_rate_is_what_takes_the_time(self, text):
        told = job(str, text, rate="100/s").forecast(8)
        assert told.seconds == pytest.approx(80, rel=0.5)

    def test_what_is_done_takes_no_time(self, tmp_path):
        done = job(str, bf.records(range(10)), into=str(tmp_path / "out/") + "/")
        done.run()
        told = done.forecast()
        assert (told.trial, told.seconds, told.problems) == (None, None, ())


class TestCommand:
    @pytest.fixture(autouse=True)
    def folder(self, text, tmp_path, monkeypatch):
        code = "import threading\nLOCK = threading.Lock()\n\ndef fails(line):\n    raise ValueError(line)\n\n"
        (tmp_path / "steps.py").write_text(f"{code}def locks(line, lock=LOCK):\n    return line\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("BATCHFLOW_EXECUTOR", "processes")

    def test_records_that_fail_are_in_the_exit_status_and_advice_is_not(self, tmp_path, capsys):
        (tmp_path / "more.py").write_text(
            "import time\n\ndef odd(line):\n    return 1 // (int(line[-1]) % 2)\n\n"
            "def wait(line):\n    time.sleep(0.6)\n"
        )
        plan = ["plan", "in", "--read", "text", "--executor", "processes"]
        assert main([*plan[:1], "more.py:odd", *plan[1:]]) == 1
        out = capsys.readouterr().out
        assert "ZeroDivisionError in call" in out
        assert "problem" not in out
        assert main([*plan[:1], "more.py:wait", *plan[1:]]) == 0
        assert "\nadvice    calls waited for" in capsys.readouterr().out

    def test_problems_are_first_and_in_the_exit_status(self, capsys):
        assert main(["plan", "steps.py:fails", "in", "--read", "text", "--sample", "20"]) == 1
        assert capsys.readouterr().out.startswith("problem   ")

    def test_function_that_holds_a_lock_of_its_file_has_no_problem(self, capsys):
        assert main(["plan", "steps.py:locks", "in", "--read", "text", "--sample", "20"]) == 0
        out = capsys.readouterr().out
        assert "sample    20 records" in out
        assert "problem" not in out

    def test_function_with_a_lock_after_a_file_that_is_gone(self, tmp_path, capsys):
        (tmp_path / "gone.py").write_text("def same(line):\n    return line\n")
        assert main(["plan", "gone.py:same", "in", "--read", "text", "--sample", "20"]) == 0
        (tmp_path / "gone.py").unlink()
        assert main(["plan", "steps.py:locks", "in", "--read", "text", "--sample", "20"]) == 0
        assert "problem" not in capsys.readouterr().out

    def test_without_a_sample_nothing_is_called(self, capsys):
        assert main(["plan", "steps.py:fails", "in", "--read", "text", "--no-sample"]) == 0
        assert "sample" not in capsys.readouterr().out

    def test_it_tells_machines_in_json(self, capsys):
        assert main(["plan", "builtins:len", "in", "--read", "text", "--into", "out/", "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["problems"], told["inputs"], told["kind"], told["output"]["format"]) == (
            [],
            4,
            "text",
            "parquet",
        )
        assert told["sample"]["failed"] == 0
        assert told["seconds"] > 0
