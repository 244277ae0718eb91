"""`--json`: one object, with the keys that docs/command-line.md names, whatever becomes of the command."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from batchflow.cli import main
from batchflow.cli.submit.job_server import JobInfo

DOCUMENT = (Path(__file__).parents[2] / "docs/command-line.md").read_text()
STEPS = """
import batchflow as bf

def clean(row):
    if row["n"] == 3:
        raise ValueError("three \\x1b[31m")
    return {"n": 2 * row["n"]}

def mended(row):
    return {"n": 2 * row["n"]}

def interrupted(row):
    raise KeyboardInterrupt

flow = bf.Flow("sum")
rows = flow.map_records(clean, bf.read_csv("in.csv"), name="rows")
total = flow.step(len, rows, name="total")
flow.step(print, name="last", after=total)

def bad():
    flow = bf.Flow("bad")
    flow.step(int, "x", name="bad")
    return flow
"""


def documented(name):
    """Return the keys that the document tells of."""
    (line,) = [line for line in DOCUMENT.splitlines() if line.startswith(f"| {name} |") and line.count("|") == 3]
    return re.findall("`(.*?)`", line.split("|")[2])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "f.py").write_text(STEPS)
    (tmp_path / "in.csv").write_text("n\n1\n2\n3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BATCHFLOW_EXECUTOR", "serial")
    return tmp_path


@pytest.fixture
def told(folder, capsys):
    def run(*arguments, status=0, keys=None):
        assert main([*arguments, "--json"]) == status
        (line,) = capsys.readouterr().out.splitlines()
        shape = json.loads(line)
        assert shape.pop("command") == arguments[0]
        assert shape.pop("exit_status") == status
        if keys is not None:
            assert list(shape) == documented(keys)
        return shape

    return run


def test_run_with_an_output_and_retry(told):
    shape = told("run", "f.py:clean", "in.csv", "--into", "out/", status=1, keys="`run`, `retry`")
    assert (Path(shape["output"]), shape["values"]) == (Path("out").absolute(), None)
    assert {name: shape["report"][name] for name in ("rows_in", "rows_out", "failed")} == {
        "rows_in": 3,
        "rows_out": 2,
        "failed": 1,
    }
    example = {"step": None, "source": "in.csv", "record": 3, "message": "three \x1b[31m"}
    assert shape["errors"] == [
        {"count": 1, "phase": "call", "error_type": "ValueError", "where": "f.py:6 in clean", "example": example}
    ]
    assert list(shape["errors"][0]) == documented("an item of `errors`")
    shape = told("retry", "out/", "f.py:mended", "--version", "2", keys="`run`, `retry`")
    assert (shape["report"]["rows_out"], shape["errors"]) == (3, [])


def test_rows_that_go_nowhere_else(told):
    shape = told("run", "f.py:clean", "in.csv", status=1, keys="`run`, `retry`")
    assert (shape["output"], shape["values"]) == (None, [{"n": 2}, {"n": 4}])


def test_no_control_character_reaches_a_terminal(folder, capsys):
    main(["run", "f.py:clean", "in.csv", "--json"])
    assert "\x1b" not in "".join(capsys.readouterr())


def test_plan(told):
    arguments = ("f.py:clean", "in.csv", "--into", "o.csv", "--chunk", "4B", "--no-sample")
    shape = told("plan", *arguments, keys="`plan`")
    assert shape["output"] == {"path": str(Path("o.csv").absolute()), "format": "csv"}
    assert {name: shape[name] for name in ("kind", "inputs", "size", "chunk_weight", "problems", "sample")} == {
        "kind": "csv",
        "inputs": 1,
        "size": 8,
        "chunk_weight": 4,
        "problems": [],
        "sample": None,
    }
    assert shape["finished"] is False


def test_scale(told):
    shape = told("scale", "f.py:mended", "in.csv", "--workers", "1", "--rounds", "1", "--quiet", keys="`scale`")
    assert [point["workers"] for point in shape["points"]] == [1]


def test_flow(told):
    shape = told("flow", "f.py:flow", "--on-error", "continue", "--quiet", status=1, keys="`flow`")
    assert (shape["flow"], shape["counts"]) == ("sum", {"succeeded": 3})
    assert {tuple(step) for step in shape["steps"]} == {tuple(documented("a step of `flow`"))}
    rows, total, last = shape["steps"]
    assert (rows["name"], rows["state"], rows["has_value"], rows["value"]) == ("rows", "succeeded", False, None)
    assert rows["report"]["rows_out"] == 2
    assert (total["report"], total["has_value"], total["value"]) == (None, True, 2)
    assert (last["has_value"], last["value"]) == (True, None)
    assert [(one["count"], one["example"]["step"]) for one in shape["errors"]] == [(1, "rows")]


def test_flow_that_fails_and_flow_as_it_is_written(told):
    shape = told("flow", "f.py:bad", status=1, keys="`flow`")
    (step,) = shape["steps"]
    assert (step["state"], step["why"][:10], step["has_value"]) == ("failed", "ValueError", False)
    shape = told("flow", "f.py:flow", "--explain", keys="`flow --explain`")
    assert shape["steps"] == [
        {"name": "rows", "kind": "map", "needs": [], "after": []},
        {"name": "total", "kind": "step", "needs": ["rows"], "after": []},
        {"name": "last", "kind": "step", "needs": [], "after": ["total"]},
    ]
    assert list(shape["steps"][0]) == documented("a step of `flow --explain`")


def test_report(told):
    told("run", "f.py:clean", "in.csv", "--into", "out/", status=1)
    assert Path(told("report", "out/", keys="`report`")["path"]) == Path(".out_batchflow/report.html").absolute()
    assert Path(told("report", "out/", "--trace", keys="`report`")["path"]).name == "trace.json"


def test_verify(told):
    told("run", "f.py:clean", "in.csv", "--into", "out/", status=1)
    shape = told("verify", "out/", keys="`verify`")
    assert shape == {
        "ok": True,
        "problems": [],
        "notes": [],
        "rows_in": 3,
        "rows_out": 2,
        "failed": 1,
        "uncounted": 0,
        "damaged": 0,
    }
    Path("out/part-00000.parquet").write_bytes(b"")
    shape = told("verify", "out/", status=1, keys="`verify`")
    assert not shape["ok"]
    assert "part-00000" in shape["problems"][0]
    ledger = Path(".out_batchflow/ledger.log")
    ledger.write_bytes(ledger.read_bytes().replace(b'"rows', b'"rowz', 1))
    shape = told("verify", "out/", status=1, keys="`verify`")
    assert (shape["ok"], len(shape["problems"]), shape["rows_in"]) == (False, 1, None)


def test_refused_stopped_and_interrupted(told, capsys):
    shape = told("run", "f.py:clean_", "in.csv", status=2)
    assert (list(shape), shape["error"]["type"]) == (["error"], "FunctionError")
    assert "did you mean 'clean'?" in shape["error"]["message"]
    assert told("plan", "f.py:clean", "gone.csv", status=2)["error"]["type"] == "InputError"
    shape = told("run", "f.py:clean", "in.csv", "--max-errors", "0", status=3)
    assert (list(shape), shape["error"]["type"]) == (["error", "report", "errors"], "StoppedError")
    assert (shape["report"]["failed"], shape["errors"][0]["count"]) == (1, 1)
    shape = told("flow", "f.py:bad", "--max-errors", "0", status=3)
    assert list(shape) == ["error", *documented("`flow`")]
    assert told("run", "f.py:interrupted", "in.csv", status=130)["error"]["type"] == "KeyboardInterrupt"


PRINTING = """
import os

print("imported")

def loud(row):
    print("from Python", flush=True)
    os.system("echo from a shell")
    return row
"""


def test_what_functions_print_does_not_come_between(folder):
    (folder / "loud.py").write_text(PRINTING)
    command = [
        sys.executable,
        "-m",
        "batchflow.cli",
        "run",
        "loud.py:loud",
        "in.csv",
        "--json",
        "--executor",
        "processes",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["values"] == [{"n": 1}, {"n": 2}, {"n": 3}]
    # Workers write side by side, so a line may begin in another one.
    assert [done.stderr.count(text) for text in ("imported", "from Python", "from a shell")] == [1, 3, 3]


class Cluster:
    """Stands for a job server; what one tells is in tests/cluster."""

    where = ""

    def __init__(self, address, *, patience=0.0, announce=None):
        pass

    def stop(self, job_id, _):
        return JobInfo(job_id, "STOPPED", 10.0, 12.5, "run f.py:clean", "/out", None, "")

    def follow(self, job_id, hear):
        hear("a line\n")
        if job_id == "batchflow-2":
            raise KeyboardInterrupt
        return JobInfo(job_id, "FAILED", 10.0, 12.5, "run f.py:clean", "/out", 3, "")


def test_jobs_of_a_cluster(folder, capsys, monkeypatch):
    monkeypatch.setattr("batchflow.cli.submit.commands.JobServer", Cluster)
    monkeypatch.setattr("batchflow.cli.submit.commands.submit", lambda *_: ("batchflow-1", True))

    def told(*arguments):
        status = main([*arguments, "--json"])
        captured = capsys.readouterr()
        (line,) = captured.out.splitlines()
        shape = json.loads(line)
        assert (shape.pop("command"), shape.pop("exit_status")) == (arguments[0], status)
        assert list(shape) == documented(f"`{arguments[0]}`")
        assert shape["job"] is None or list(shape["job"]) == documented(
            "a job: of `submit` and `stop`, a line of `jobs`"
        )
        return status, shape, captured.err

    status, shape, _ = told("stop", "batchflow-1")
    assert (status, shape["job"]["status"], shape["job"]["seconds"]) == (0, "STOPPED", 2.5)
    status, shape, _ = told("submit", "run", "f.py:clean", "in.csv", "--no-wait")
    assert (status, shape) == (0, {"id": "batchflow-1", "new": True, "job": None})
    status, shape, messages = told("submit", "run", "f.py:clean", "in.csv")
    assert (status, shape["job"]["exit_code"]) == (3, 3)
    assert messages.splitlines()[:2] == ["submitted batchflow-1", "a line"]
    monkeypatch.setattr("batchflow.cli.submit.commands.submit", lambda *_: ("batchflow-2", False))
    status, shape, _ = told("submit", "run", "f.py:clean", "in.csv")
    assert (status, shape) == (130, {"id": "batchflow-2", "new": False, "job": None})
