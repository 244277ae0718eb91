"""``batchflow flow``: runs, explains and draws; what it prints, and its exit status."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import batchflow as bf
from batchflow.cli import main

FLOW = """
import os
import time

import batchflow as bf
import pyarrow as pa

def give(value):
    return value

def divide(number):
    return {"half": 10 // number}

def refuse():
    raise ValueError("no \\x1b[31m")

def wait(folder):
    open(f"{folder}/waits", "w").close()
    while not os.path.exists(f"{folder}/go"):
        time.sleep(0.01)

flow = bf.Flow("sales")
numbers = flow.step(give, [1, 2, 0, 5])
halves = flow.map_records(divide, numbers)
rows = flow.step(lambda table: table.num_rows, halves, name="rows")

good = bf.Flow("good")
good.step(give, {"a": (1, 2)}, name="pair")
good.step(give, pa.table({"x": [1, 2]}), name="table")

bad = bf.Flow("bad")
bad.step(refuse)
bad.step(give, 1, after=bad["refuse"], name="after")
bad.step(give, 2, name="other")

def made(count=1, text="x"):
    flow = bf.Flow("made")
    flow.step(give, text * count, name="text")
    return flow

def broken():
    return made().step(give)

def failing():
    raise OSError("no such table")

def waiting(folder):
    flow = bf.Flow("waiting")
    flow.step(wait, folder, per_task=bf.Resources(cpus=0))
    flow.step(give, 1, after=flow["wait"], name="late")
    return flow
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows_of_test.py").write_text(FLOW)


def run(capsys, *arguments):
    status = main(["flow", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_flow_that_succeeds(capsys):
    status, out, err = run(capsys, "flows_of_test.py:good", "--executor", "serial")
    assert status == 0
    assert [json.loads(line) for line in out.splitlines()] == [
        {"step": "pair", "value": {"a": [1, 2]}},
        {"step": "table", "value": [{"x": 1}, {"x": 2}]},
    ]
    assert err.startswith("good: 2 steps in ")


def test_failed_records(capsys):
    status, out, err = run(capsys, "flows_of_test.py:flow", "--executor", "serial")
    assert (status, json.loads(out)) == (1, {"step": "rows", "value": 3})
    assert "1 x ZeroDivisionError in call: divide: records, record 3: integer division" in err
    assert err.splitlines()[-1] == ("next: once fixed, batchflow flow flows_of_test.py:flow --executor serial")
    status, _, err = run(capsys, "flows_of_test.py:flow", "--executor", "serial", "--max-errors", "0")
    assert (status, err.count("\n")) == (3, 2)
    assert err.startswith(
        "batchflow: stopped: more than max_errors=0 failed; 1 record failed: divide: records, record 3:"
    )


def test_failed_steps(capsys):
    status, out, err = run(capsys, "flows_of_test.py:bad", "--executor", "serial", "--workers", "1")
    assert (status, out) == (1, "")
    assert "1 failed, 1 skipped, 1 cancelled" in err
    assert err.endswith("--workers 1 --on-error continue\n")
    assert "failed          refuse: ValueError: no \\x1b[31m\nskipped         " in err
    assert r"1 x ValueError in call: refuse: no \x1b[31m" in err
    status, out, err = run(capsys, "flows_of_test.py:bad", "--executor", "serial", "--on-error", "continue")
    assert (status, json.loads(out)) == (1, {"step": "other", "value": 2})
    assert "1 failed, 1 skipped, 1 succeeded" in err


def test_the_output_of_a_step_with_failures_is_named(capsys, tmp_path):
    (tmp_path / "in.txt").write_text("1\nx\n")
    (tmp_path / "kept.py").write_text(
        "import batchflow as bf\n\nflow = bf.Flow()\n"
        "flow.map_records(lambda line: {'n': int(line)}, bf.read_text('in.txt'), into='it is.parquet', name='kept')\n"
    )
    status, _, err = run(capsys, "kept.py:flow", "--executor", "serial")
    assert status == 1
    assert (
        "\nnext: batchflow errors 'it is.parquet' --all; once fixed, batchflow flow kept.py:flow --executor serial"
        in err
    )
    assert main(["errors", "it is.parquet"]) == 1


def test_a_flow_in_which_everything_fails_is_told_in_under_twelve_lines():
    def fails(kind):
        raise kind("no")

    flow = bf.Flow()
    for at, kind in enumerate((ValueError, TypeError, OSError, KeyError, LookupError) * 3):
        flow.step(print, flow.step(fails, kind, name=f"step {at}"), name=f"behind {at}")
    run = flow.run(executor="serial", on_error="continue")
    lines = str(run).splitlines()
    assert len(lines) < 12
    assert lines[1:7:3] == ["failed          step 0: ValueError: no", "skipped         behind 0: 'step 0' failed"]
    assert lines[3].endswith("and 13 more steps")
    assert repr(run) == f"<FlowRun {lines[0]}>"


def test_only_some_steps_and_quiet(capsys):
    status, out, err = run(capsys, "flows_of_test.py:bad", "--only", "other", "--executor", "serial", "--quiet")
    assert (status, json.loads(out), err) == (0, {"step": "other", "value": 2}, "")


def test_a_function_that_returns_a_flow(capsys):
    status, out, _ = run(
        capsys, "flows_of_test:made", "--arg", "count=3", "--arg", "text=ab", "--executor", "serial"
    )
    assert (status, json.loads(out)) == (0, {"step": "text", "value": "ababab"})


def test_explaining_and_drawing_run_nothing(capsys, tmp_path):
    status, out, err = run(capsys, "flows_of_test.py:bad", "--explain", "--draw", "before.svg")
    assert (status, err) == (0, "")
    assert "widest point" in out
    assert (tmp_path / "before.svg").read_text().startswith("<svg")


def test_drawing_after_a_run(capsys, tmp_path):
    status, _, _ = run(capsys, "flows_of_test.py:bad", "--executor", "serial", "--draw", "after.mmd")
    assert status == 1
    assert "failed" in (tmp_path / "after.mmd").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["flows_of_test.py"], "'flows_of_test.py' names no flow: write it like steps.py:clean"),
        (["flows_of_test.py:other"], "flows_of_test.py has no flow 'other'; it has bad, flow, good"),
        (
            ["flows_of_test.py:divide", "--arg", "number=2"],
            "flows_of_test.py has no flow 'divide'; it has bad, flow, good",
        ),
        (
            ["flows_of_test.py:failing"],
            "flows_of_test.py:failing failed to write its flow: OSError: no such table",
        ),
        (
            ["flows_of_test.py:broken"],
            "step 'give': flows_of_test.give cannot be called so: missing a required argument: 'value'",
        ),
        (["flows_of_test.py:good", "--only", "tables"], "flow 'good' has no step 'tables'; it has pair, table"),
        (["flows_of_test.py:good", "--max-errors", "few"], "--max-errors 'few' is not a number"),
        (
            ["flows_of_test.py:good", "--executor", "threads"],
            "unknown executor 'threads': use one of serial, processes, ray",
        ),
        (
            ["flows_of_test.py:good", "--explain", "--draw", "x.png"],
            "cannot draw x.png: name it .svg for a picture",
        ),
        (["nowhere.py:flow"], "there is no file 'nowhere.py'"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(capsys, arguments, message):
    status, _, err = run(capsys, *arguments)
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith(f"batchflow: {message}")


@pytest.mark.parametrize("executor", ["processes", pytest.param("ray", marks=pytest.mark.cluster)])
def test_ctrl_c_lets_running_steps_finish(tmp_path, executor):
    """And the line that starts it again is printed."""
    command = [
        "-m",
        "batchflow.cli",
        "flow",
        "flows_of_test.py:waiting",
        "--arg",
        f"folder={tmp_path}",
        "--executor",
        executor,
    ]
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 60
    while not (tmp_path / "waits").exists() and process.poll() is None and time.monotonic() < end:
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    line = process.stderr.readline() + process.stderr.readline()
    (tmp_path / "go").touch()
    _, err = process.communicate(timeout=60)
    assert "finishing what is running" in line + err
    assert process.returncode == 130
    assert "batchflow: interrupted after 1 of 2 steps: run the same again to go on" in err
    assert f"batchflow flow flows_of_test.py:waiting --arg folder={tmp_path}" in err
