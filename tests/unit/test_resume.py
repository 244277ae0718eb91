"""The same call again: goes on, adds, refuses with words, or says that nothing is to be done."""

import datetime
import decimal
import gzip
import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crash import proved
from seen import seen

import batchflow as bf
from batchflow import errors

GO_ON = (
    r"run the job with fresh=True \(--fresh\) to make all of it again, or a name for the new one, version='2' \(--version 2\), "
    "to keep what is done and go on with it"
)


def run(fn, source, tmp_path, into="out/", **options):
    return bf.map_records(fn, source, into=f"{tmp_path}/{into}", executor="serial", **options)


def rows(tmp_path, into="out"):
    return pq.read_table(tmp_path / into)["value"].to_pylist()


@pytest.fixture
def text(tmp_path):
    """Make a folder of two text files and return its source."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.txt").write_text("1\n2\n")
    (tmp_path / "in/c.txt").write_text("5\nx\n")
    return bf.read_text(tmp_path / "in")


def test_what_is_done_is_not_called_again(text, tmp_path):
    calls = []

    def fn(line):
        calls.append(line)
        return int(line)

    first = run(fn, text, tmp_path)
    calls.clear()
    again = run(fn, text, tmp_path)
    assert calls == []
    assert seen(again).values == seen(first).values == [1, 2, 5]
    assert again.errors.equals(first.errors)
    assert (again.report.rows_in, again.report.rows_out, again.report.failed) == (4, 3, 1)
    assert str(again.report).splitlines()[1] == "nothing to do: all of it was done before"


def test_an_executor_that_is_none_is_refused_though_nothing_is_left(text, tmp_path):
    run(int, text, tmp_path)
    with pytest.raises(errors.UsageError, match="unknown executor 'threads'"):
        bf.map_records(int, text, into=f"{tmp_path}/out/", executor="threads")


@pytest.mark.parametrize("into", ["out/", "x.parquet", "x.csv", "x.jsonl", "x.arrow"])
def test_new_files_go_behind_the_old_ones(text, tmp_path, into):
    calls = []

    def fn(line):
        calls.append(line)
        return {"n": int(line), **({"late": line} if line == "3" else {})}

    run(fn, text, tmp_path, into)
    (tmp_path / "in/b.txt").write_text("3\n4\n")
    calls.clear()
    result = run(fn, text, tmp_path, into)
    assert calls == ["3", "4"]
    assert [row["n"] for row in seen(result).values] == [1, 2, 5, 3, 4]
    assert [row.get("late") or None for row in result.values] == [None, None, None, "3", None]
    assert result.errors.select(["source", "record"]).to_pylist() == [
        {"source": f"{tmp_path}/in/c.txt", "record": 2}
    ]
    assert (result.report.rows_in, result.report.before) == (6, 4)
    assert proved(tmp_path / into.rstrip("/")) == []


def test_an_input_that_changed_is_refused(text, tmp_path):
    run(len, text, tmp_path)
    (tmp_path / "in/a.txt").write_text("1\n2\n3\n")
    with pytest.raises(
        errors.ChangedError, match=r"a\.txt has changed since .*out was made of it \(size 4 then, 6 "
    ):
        run(len, text, tmp_path)
    assert run(len, text, tmp_path, fresh=True).values == [1] * 5
    os.utime(tmp_path / "in/a.txt", ns=(1, 1))
    with pytest.raises(errors.ChangedError, match="it was written to, or other content took its place"):
        run(len, text, tmp_path)


def test_an_input_that_is_gone_stays_done(text, tmp_path):
    run(len, text, tmp_path)
    (tmp_path / "in/a.txt").unlink()
    assert run(len, text, tmp_path).values == [1, 1, 1, 1]


def test_a_function_that_changed_is_refused_and_a_version_goes_on(text, tmp_path):
    run(lambda line: int(line), text, tmp_path)
    (tmp_path / "in/d.txt").write_text("7\n")
    with pytest.raises(
        errors.ChangedError, match=r"the function .*lambda.* has changed since it made .*out: " + GO_ON
    ):
        run(lambda line: -int(line), text, tmp_path)
    assert seen(run(lambda line: -int(line), text, tmp_path, version="2")).values == [1, 2, 5, -7]
    assert seen(run(lambda line: -int(line), text, tmp_path)).values == [1, 2, 5, -7]  # which now is the function
    assert seen(run(lambda line: 0, text, tmp_path, version="2")).values == [1, 2, 5, -7]
    assert run(lambda line: 0, text, tmp_path, fresh=True).values == [0, 0, 0, 0, 0]


def test_comments_and_places_are_no_change(text, tmp_path):
    code = "def fn(line):{}\n    return int(line)"
    for comment in ("", "  # a comment", "\n    # another"):
        names = {}
        exec(compile(code.format(comment), "steps.py", "exec"), names)
        assert seen(run(names["fn"], text, tmp_path)).values == [1, 2, 5]


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ({"args": {"by": 1}}, {"args": {"by": 2}}, "made with another value of args=by: " + GO_ON),
        (
            {"format": "parquet"},
            {"format": "csv"},
            "made with format 'parquet', and now it is 'csv': run the job with fresh=True",
        ),
        ({"setup": lambda: 1}, {"setup": lambda: 2}, "or its setup=, has changed since it made"),
    ],
)
def test_other_options_are_refused(text, tmp_path, first, second, what):
    def fn(line, extra=0, by=0):
        return len(line) + extra + by

    run(fn, text, tmp_path, **first)
    run(fn, text, tmp_path, **first)
    with pytest.raises(errors.ChangedError, match=what):
        run(fn, text, tmp_path, **second)


def test_another_kind_of_input_is_refused(text, tmp_path):
    run(str, text, tmp_path)
    with pytest.raises(errors.ChangedError, match=r"with the source kind='text', and now it is kind='json'"):
        run(str, bf.read_json(tmp_path / "in"), tmp_path)
    with pytest.raises(errors.ChangedError, match="made with per 'record', and now it is 'batch'"):
        bf.map_batches(str, text, into=f"{tmp_path}/out/", executor="serial")


def test_options_that_change_no_row_may_change(text, tmp_path):
    run(len, text, tmp_path, chunk="10B")
    options = {"chunk": "99B", "part_size": "1MB", "max_errors": 5, "timeout": 9, "retry": bf.Retry()}
    assert run(len, text, tmp_path, limits=bf.Resources(cpus=1), **options).report.before == 4
    assert run(len, text, tmp_path, **options).values == [1, 1, 1, 1]


def test_a_range_of_the_same_length_is_another_input(tmp_path):
    run(str, bf.records(range(3)), tmp_path)
    with pytest.raises(errors.ChangedError, match="the input records has changed since"):
        run(str, bf.records(range(100, 103)), tmp_path)


@pytest.mark.parametrize("first", [[1, 2, 3], range(3), pa.table({"x": [1, 2]}), [{"a": object()}]], ids=repr)
def test_records_in_memory_are_known_by_their_content(tmp_path, first):
    source = bf.records(first)
    before = run(str, source, tmp_path)
    assert str(run(str, bf.records(first), tmp_path).report).endswith("done before")
    with pytest.raises(errors.ChangedError, match="the input records has changed since"):
        run(str, bf.records(list(range(len(before)))[::-1] + [9] * (len(before) == 3)), tmp_path)


def test_a_generator_goes_on_behind_what_is_done(tmp_path):
    """Its records are made again, but the function is not called with them."""
    calls = []

    def fn(n):
        calls.append(n)
        if n == 6 and len(calls) == 7:
            raise KeyboardInterrupt
        return n

    with pytest.raises(
        errors.InterruptedRun, match=r"^interrupted: what is done is kept in .*out; run the same again"
    ):
        run(fn, bf.records(iter(range(10))), tmp_path, chunk=2)
    calls.clear()
    result = run(fn, bf.records(iter(range(10))), tmp_path, chunk=3)
    assert calls == [6, 7, 8, 9]
    assert rows(tmp_path) == list(range(10))
    assert result.report.before == 6
    assert proved(tmp_path / "out") == []


def test_a_generator_whose_types_do_not_go_together_is_gone_on_with_the_next_time(tmp_path):
    """A chunk that an earlier run did, before those in front of it told their types, has to be done again."""
    from fake import FakeExecutor

    class Backwards(FakeExecutor):
        def wait(self, job=None, timeout=None):
            if len(self.performed) == 2:
                raise KeyboardInterrupt
            return super().wait(job, timeout)

    def run_it(executor):
        return bf.map_records(
            lambda n: {"a": n} if n < 4 else {"a": str(n)},
            bf.records(iter(range(8))),
            into=f"{tmp_path}/out/",
            chunk=2,
            executor=executor,
        )

    with pytest.raises(errors.InterruptedRun):
        run_it(Backwards(2, pick=lambda count: count - 1))
    with pytest.raises(errors.OutputError, match=r"do not go with those before it; .* run the same command again"):
        run_it("serial")
    result = run_it("serial")
    assert pq.read_table(tmp_path / "out")["a"].to_pylist() == [0, 1, 2, 3]
    assert result.errors["record"].to_pylist() == [5, 6, 7, 8]
    assert proved(tmp_path / "out") == []


def test_types_of_csv_stay_as_they_were_inferred(tmp_path):
    """However the first files look that a later run sees."""
    (tmp_path / "a.csv").write_text("n\n1\n2\n")
    source = bf.read_csv(f"{tmp_path}/*.csv")
    run(lambda row: row["n"], source, tmp_path)
    (tmp_path / "0.csv").write_text("n\nx\n3\n")
    result = run(lambda row: row["n"], source, tmp_path)
    assert rows(tmp_path) == [1, 2, 3]
    assert result.errors["message"].to_pylist() == [
        "column 'n': 'x' is not of type int, inferred from the first rows: to keep such cells as they are, pass types={'n': str} (--types n=str)"
    ]


def test_two_runs_at_once_are_refused(text, tmp_path):
    def fn(line):
        with pytest.raises(errors.DestinationError, match=r"another run is writing to .*out: wait for its end"):
            run(len, bf.read_text(tmp_path / "in"), tmp_path, fresh=True)
        return int(line)

    assert seen(run(fn, text, tmp_path)).values == [1, 2, 5]


def test_a_stop_can_be_gone_on_from(tmp_path):
    def fn(n):
        if n % 3 == 0:
            raise ValueError(n)
        return n

    with pytest.raises(errors.StoppedError):
        run(fn, bf.records(list(range(20))), tmp_path, max_errors=1, chunk=1)
    with pytest.raises(errors.StoppedError) as stop:
        run(fn, bf.records(list(range(20))), tmp_path, max_errors=3, chunk=1)
    assert stop.value.report.before >= 4
    result = run(fn, bf.records(list(range(20))), tmp_path, chunk=1)
    assert rows(tmp_path) == [n for n in range(20) if n % 3]
    assert result.errors["record"].to_pylist() == [1, 4, 7, 10, 13, 16, 19]


def test_a_function_that_cannot_be_shipped_leaves_a_half_done_output_alone(tmp_path):
    import threading

    lock = threading.Lock()
    with pytest.raises(errors.FunctionError):
        bf.map_records(lambda n: lock, bf.records([1]), into=f"{tmp_path}/out/", executor="processes")
    assert not (tmp_path / "out").exists()


def test_nothing_in_an_output_is_a_pickle_or_a_secret(text, tmp_path):
    def fn(line, key):
        return int(line)

    run(fn, text, tmp_path, args={"key": "s3cret"})
    for file in (*(tmp_path / "out").rglob("*"), *(tmp_path / ".out_batchflow").rglob("*")):
        if file.is_file():
            data = file.read_bytes()
            assert b"s3cret" not in data
            with pytest.raises((pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError)):
                pickle.loads(data)


def test_the_plan_tells_what_is_done(text, tmp_path):
    job = bf.Job(len, text, into=f"{tmp_path}/out/", executor="serial")
    assert "done" not in job.plan().explain()
    job.run()
    assert job.plan().explain().splitlines()[-1] == "done      4 records in 2 chunks: nothing is left to do"
    (tmp_path / "in/d.txt").write_text("7\n")
    assert job.plan().explain().splitlines()[-1] == "done      4 records in 2 chunks: the run goes on from there"


def test_a_run_from_another_folder_finds_relative_inputs(text, tmp_path, monkeypatch, capsys):
    from batchflow.cli import main

    (tmp_path / "steps.py").write_text("def fn(line):\n    return int(line)\n")
    monkeypatch.chdir(tmp_path)
    assert main(["run", "steps.py:fn", "in/*.txt", "--into", "out/", "--executor", "serial"]) == 1
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert main(["verify", "../out"]) == 0
    monkeypatch.chdir(tmp_path / "else")
    assert main(["errors", "../out"]) == 1
    Path(tmp_path / "steps.py").write_text("def fn(line):\n    return 0 if line == 'x' else int(line)\n")
    code = "import sys; from batchflow.cli import main; sys.exit(main(sys.argv[1:]))"
    for arguments, status, told in (
        (["retry", "../out"], 2, "has changed since it made"),
        (["retry", "../out", "--version", "2"], 0, "4 records in, 4 rows out, 0 failed"),
        (["retry", "../out"], 0, "nothing to do: all of it was done before"),
    ):
        command = [sys.executable, "-c", code, *arguments, "--executor", "serial"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, told in done.stderr) == (status, True), done.stderr
    assert rows(tmp_path) == [1, 2, 5, 0]


@pytest.mark.parametrize(
    ("gone", "status", "told", "left"),
    [
        ("a.txt", 0, "1 error tried again: 1 gone, 0 left", [1, 2, 5, 0]),
        ("c.txt", 1, "FileNotFoundError", [1, 2, 5]),
    ],
)
def test_a_retry_goes_on_without_a_file_that_is_gone(
    text, tmp_path, monkeypatch, capsys, gone, status, told, left
):
    from batchflow.cli import main

    (tmp_path / "steps.py").write_text("def fn(line):\n    return int(line)\n")
    monkeypatch.chdir(tmp_path)
    assert main(["run", "steps.py:fn", "in", "--into", "out/", "--executor", "serial"]) == 1
    (tmp_path / "more.py").write_text("def fn(line):\n    return 0 if line == 'x' else int(line)\n")
    kept = {path.name: path.read_text() for path in (tmp_path / "in").iterdir()}
    times = {path.name: (path.stat().st_mtime_ns,) * 2 for path in (tmp_path / "in").iterdir()}
    (tmp_path / "in" / gone).unlink()
    capsys.readouterr()
    assert main(["retry", "out", "more.py:fn", "--version", "2", "--executor", "serial"]) == status
    assert told in capsys.readouterr().err
    assert rows(tmp_path) == left
    assert proved(tmp_path / "out") == []
    (tmp_path / "in" / gone).write_text(kept[gone])
    os.utime(tmp_path / "in" / gone, ns=times[gone])
    main(["retry", "out", "more.py:fn", "--version", "2", "--executor", "serial"])
    assert (rows(tmp_path), proved(tmp_path / "out")) == ([1, 2, 5, 0], [])


@pytest.mark.parametrize("kind", ["csv", "txt", "jsonl"])
@pytest.mark.parametrize("compression", ["gz", "bz2", "xz", "zst", "lz4"])
def test_a_damaged_file_is_no_better_the_second_time(tmp_path, kind, compression):
    (tmp_path / f"bad.{kind}.{compression}").write_text("what is no data\n1,2\n")
    (tmp_path / f"good.{kind}").write_text({"csv": "n\n1\n", "txt": "1\n", "jsonl": '{"n": 1}\n'}[kind])
    read = {"csv": bf.read_csv, "txt": bf.read_text, "jsonl": bf.read_json}[kind]
    job = bf.Job(str, read(tmp_path / f"*.{kind}*"), into=tmp_path / "out/", executor="serial")
    first = job.run()
    again = job.retry_failed()
    (row,) = again.errors.to_pylist()
    assert row["message"].startswith(f"this is not {compression} data, whatever its name says")
    assert row == first.errors.to_pylist()[0] | {"attempts": 2, "worker": row["worker"], "seconds": row["seconds"]}
    assert again.table.to_pylist() == first.table.to_pylist()
    assert proved(tmp_path / "out") == []


def test_a_record_that_is_not_there_any_more_is_no_success(tmp_path):
    path = tmp_path / "in.txt.gz"
    path.write_bytes(gzip.compress(b"1\n2\nx\n", mtime=0))
    status, mended = path.stat(), tmp_path / "mended"

    def fn(line):
        return {"n": 3 if mended.exists() else int(line)}

    job = bf.Job(fn, bf.read_text(path), into=tmp_path / "out/", executor="serial")
    job.run()
    path.write_bytes(gzip.compress(b"1\n2\n", mtime=0).ljust(status.st_size, b"\0"))
    os.utime(path, ns=(status.st_mtime_ns,) * 2)
    mended.touch()
    again = job.retry_failed()
    assert again.errors.select(["record", "payload"]).to_pylist() == [{"record": 3, "payload": "x"}]
    assert proved(tmp_path / "out") == []


def test_the_retry_of_a_function_of_a_script_says_what_to_do(text, tmp_path, script):
    script(
        """
        import batchflow as bf

        def fn(line):
            return int(line)

        bf.map_records(fn, bf.read_text("in"), into="out/", executor="serial")
        """
    )
    from batchflow.cli import main

    assert json.loads((tmp_path / ".out_batchflow/plan.json").read_text())["function"]["module"] == "__main__"
    (tmp_path / "steps.py").write_text("def fn(line):\n    return 0 if line == 'x' else int(line)\n")
    assert main(["retry", f"{tmp_path}/out", "--executor", "serial"]) == 2
    assert (
        main(["retry", f"{tmp_path}/out", f"{tmp_path}/steps.py:fn", "--executor", "serial", "--version", "2"])
        == 0
    )
    assert rows(tmp_path) == [1, 2, 5, 0]


def test_retry_needs_an_output_that_came_to_its_end(tmp_path):
    job = bf.Job(len, bf.records(["a"]), into=f"{tmp_path}/out/", executor="serial")
    with pytest.raises(
        errors.UsageError, match=r"there is no output of an earlier run in .*out: run the job first"
    ):
        job.retry_failed()
    job.run()
    ledger = tmp_path / ".out_batchflow/ledger.log"
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(errors.UsageError, match="has not come to its end: run it again first, and it goes on"):
        job.retry_failed()


def test_a_retry_asks_for_the_arguments_that_were_not_written_down(tmp_path, monkeypatch, capsys):
    from batchflow.cli import main

    (tmp_path / "steps.py").write_text("def fn(line, by):\n    return 8 // (int(line) - by)\n")
    (tmp_path / "a.txt").write_text("1\n2\n3\n")
    monkeypatch.chdir(tmp_path)
    command = ["steps.py:fn", "a.txt", "--into", "out/", "--executor", "serial", "--quiet"]
    assert main(["run", *command, "--arg", "by=1"]) == 1
    assert main(["retry", "out", "--executor", "serial"]) == 2
    assert "whose values are written down nowhere: --arg by=VALUE" in capsys.readouterr().err
    assert main(["retry", "out", "--executor", "serial", "--arg", "by=2"]) == 2
    assert "made with another value of args=by" in capsys.readouterr().err
    assert main(["retry", "out", "--executor", "serial", "--arg", "by=2", "--version", "2"]) == 0
    assert rows(tmp_path) == [-8, 8, 4]


class Mended:
    """Fails for some numbers until it is mended."""

    def __init__(self, bad, mended, value=lambda n: {"x": n}):
        self.bad, self.mended, self.value = bad, mended, value

    def __call__(self, n):
        if n in self.bad and not self.mended:
            raise ValueError
        return self.value(n)


def mend(fn, count, tmp_path, **options):
    """Return a job whose function fails, run, and the same job with the function mended."""

    def job(mended, version):
        return bf.Job(
            Mended(*fn[:1], mended, *fn[1:]),
            bf.records(list(range(count))),
            into=f"{tmp_path}/out/",
            executor="serial",
            version=version,
            **options,
        )

    job(False, None).run()
    return job(True, "2")


def test_an_interrupt_while_parts_are_mended_changes_none(tmp_path, monkeypatch):
    from batchflow.jobs.repair import FailedRangeRun

    job = mend(({1, 6, 11, 16},), 20, tmp_path, chunk=5, part_size=1)
    commit = FailedRangeRun._commit

    def interrupted(*arguments):
        os.kill(os.getpid(), signal.SIGINT)
        commit(*arguments)

    monkeypatch.setattr(FailedRangeRun, "_commit", interrupted)
    with pytest.raises(errors.InterruptedRun):
        job.retry_failed()
    monkeypatch.undo()
    assert proved(tmp_path / "out") == []
    assert job.run().errors["record"].to_pylist() == [2, 7, 12, 17]
    assert [row["x"] for row in job.retry_failed().values] == list(range(20))


def test_a_retried_record_fits_all_numbers_of_its_column(tmp_path):
    """Beside integers that no float holds, one that now gives a float stays an error."""
    job = mend(({1}, lambda n: {"x": 1.5 if n == 1 else 2**60 + n}), 3, tmp_path)
    result = job.retry_failed()
    assert [row["x"] for row in seen(result).values] == [2**60, 2**60 + 2]
    assert result.errors.select(["record", "phase"]).to_pylist() == [{"record": 2, "phase": "convert"}]


def test_what_died_before_it_wrote_a_line_is_begun_anew(tmp_path):
    (tmp_path / ".out_batchflow/pieces").mkdir(parents=True)
    assert run(len, bf.records(["a"]), tmp_path).values == [1]


@pytest.mark.parametrize(
    "cell", ["a\rb", "x" * 200_000, 'a "b", c', ""], ids=["return", "long", "quotes", "empty"]
)
def test_cells_of_csv_survive_their_copy(text, tmp_path, cell):
    def fn(line):
        return {"n": line, "cell": cell}

    run(fn, text, tmp_path, "out.csv")
    (tmp_path / "in/d.txt").write_text("7\n")
    result = run(fn, text, tmp_path, "out.csv")
    assert [row["cell"] for row in result.values] == [cell] * 5


def test_a_retry_that_changed_nothing_can_be_tried_again(tmp_path):
    def fn(n):
        return 1 // n

    def job():
        return bf.Job(fn, bf.records(iter([1, 0])), into=f"{tmp_path}/out/", executor="serial")

    job().run()
    for _ in range(2):
        with pytest.raises(errors.InputError, match="these records come from a generator"):
            job().retry_failed()
    assert proved(tmp_path / "out") == []


@pytest.mark.parametrize("isolate", [True, False])
def test_a_retry_may_give_tables_without_rows(tmp_path, isolate):
    def job(bad, version=None):
        def fn(table):
            values = table["value"].to_pylist()
            if bad & set(values):
                raise ValueError
            return pa.table({"n": pa.array([n for n in values if n % 2], pa.int64())})

        return bf.Job(
            fn,
            bf.records(list(range(10))),
            per="batch",
            into=f"{tmp_path}/out/",
            executor="serial",
            chunk=2,
            isolate=isolate,
            version=version,
        )

    job({2, 4, 7}).run()
    result = job(set(), "2").retry_failed()
    assert (result.table["n"].to_pylist(), result.errors.num_rows) == ([1, 3, 5, 7, 9], 0)
    assert proved(tmp_path / "out") == []


def test_a_fork_of_the_driver_does_not_keep_the_output_busy(tmp_path):
    forks = []

    def fn(n):
        forks.append(os.fork())
        if not forks[-1]:
            signal.pause()
        return n

    try:
        run(fn, bf.records([0]), tmp_path)
        assert run(lambda n: n, bf.records([1]), tmp_path, fresh=True).values == [1]
    finally:
        for pid in forks:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_a_run_that_cannot_go_on_for_now_says_that_what_is_done_is_kept(text, tmp_path):
    run(len, text, tmp_path)
    (tmp_path / "in/d.txt").write_text("7\n")
    (tmp_path / ".out_batchflow/pieces").write_text("in the way")
    with pytest.raises(errors.OutputError, match="what is done is kept: run the same command again"):
        run(len, text, tmp_path)


def test_function_with_a_value_unknown_needs_a_version(text, tmp_path):
    with sqlite3.connect(":memory:") as connection:

        def fn(line):
            return int(line) if connection else None

        first = run(fn, text, tmp_path)
        with pytest.raises(errors.ChangedError, match=r"cannot tell whether the function .*connection.*sqlite3"):
            run(fn, text, tmp_path)
        assert seen(run(fn, text, tmp_path, version="2")).values == seen(first).values


def test_argument_unknown_needs_a_version(text, tmp_path):
    with sqlite3.connect(":memory:") as connection:

        def fn(line, args):
            return int(line)

        first = run(fn, text, tmp_path, args={"args": connection})
        with pytest.raises(errors.ChangedError, match=r"this value of args=args: .*sqlite3"):
            run(fn, text, tmp_path, args={"args": connection})
        assert seen(run(fn, text, tmp_path, args={"args": connection}, version="2")).values == seen(first).values


def test_records_unknown_are_never_equal(tmp_path):
    with Path(os.devnull).open() as file:
        run(lambda file: 1, bf.records([file]), tmp_path)
        with pytest.raises(errors.ChangedError, match="cannot be compared"):
            run(lambda file: 1, bf.records([file]), tmp_path)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (datetime.datetime(2024, 1, 1), "2024-01-01T00:00:00"),
        (decimal.Decimal("1.5"), "1.5"),
        ((1,), [1]),
        (np.float32(1), 1.0),
        (np.array([1]), np.array([1], "u8")),
    ],
)
def test_records_of_another_type_are_refused(tmp_path, first, second):
    run(str, bf.records([first]), tmp_path)
    with pytest.raises(errors.ChangedError, match="the input records has changed"):
        run(str, bf.records([second]), tmp_path)
