"""The command line, in a process of its own: output, exit status, refusals in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

STEPS = '''
import neighbour

def clean(row):
    if row["n"] == 3:
        raise ValueError("three \\x1b[31m")
    return {"n": row["n"] * neighbour.FACTOR}

def scale(row, by=1, unit="m"):
    return {"n": row["n"] * by, "unit": unit}

def whole(table):
    return table

def load():
    return 100

def add(row, offset):
    return {"n": row["n"] + offset}
'''


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "neighbour.py").write_text("FACTOR = 2\n")
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text("n\n1\n2\n")
    (tmp_path / "in/b.csv").write_text("n\n3\n4\n")
    return tmp_path


def batchflow(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "batchflow.cli", *arguments]
    environment = os.environ | {"BATCHFLOW_EXECUTOR": "processes"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == status, done.stderr
    return done


def test_run_writes_the_output_and_tells_what_failed(folder):
    done = batchflow(folder, "run", "steps.py:clean", "in/*.csv", "--into", "out/", status=1)
    assert pq.read_table(folder / "out/part-00000.parquet")["n"].to_pylist() == [2, 4, 8]
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "4 records in, 3 rows out, 1 failed, 0 retries"
    assert lines[2:] == [
        r"      1 x ValueError in call: in/b.csv, record 1: three \x1b[31m",
        "output in out/",
        "next: batchflow errors out/ --all",
    ]


def test_a_run_without_failures_ends_with_0_and_prints_rows_where_there_is_no_into(folder):
    done = batchflow(folder, "run", "steps:scale", "in/a.csv", "--arg", "by=10", "--arg", "unit=km", "--quiet")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"n": 10, "unit": "km"}, {"n": 20, "unit": "km"}]
    assert done.stderr == ""


def test_setup_and_batches(folder):
    done = batchflow(folder, "run", "steps.py:add", "in", "--setup", "steps.py:load", "--read", "csv", "--quiet")
    assert [json.loads(line)["n"] for line in done.stdout.splitlines()] == [101, 102, 103, 104]
    done = batchflow(folder, "run", "steps.py:whole", "in", "--per", "batch", "--read", "csv", "--quiet")
    assert [json.loads(line)["n"] for line in done.stdout.splitlines()] == [1, 2, 3, 4]


def test_max_errors_stops_with_3(folder):
    done = batchflow(folder, "run", "steps.py:clean", "in/*.csv", "--max-errors", "0", status=3)
    assert "stopped: more than max_errors=0 failed; 1 record failed: in/b.csv, record 1: ValueError" in done.stderr


def test_plan_runs_nothing(folder):
    done = batchflow(folder, "plan", "steps.py:clean", "in/*.csv", "--into", "out/")
    assert "input     csv: 2 files, 12 B" in done.stdout
    assert "function  steps.clean, once for each record" in done.stdout
    assert not (folder / "out").exists()


def test_errors_shows_groups_rows_or_json(folder):
    batchflow(folder, "run", "steps.py:clean", "in/*.csv", "--into", "out.parquet", status=1)
    grouped = batchflow(folder, "errors", "out.parquet", status=1).stdout
    assert grouped == "      1 x ValueError in call: in/b.csv, record 1: three \\x1b[31m\n"
    whole = batchflow(folder, "errors", "out.parquet", "--all", status=1).stdout
    assert whole.startswith("in/b.csv, record 1 [2:4] call, 1 attempts\n    ValueError: three \\x1b[31m\n    {'n': 3}\n")
    assert 'raise ValueError("three' in whole
    assert "\x1b" not in whole
    rows = batchflow(folder, "errors", "out.parquet", "--json", status=1).stdout
    assert json.loads(rows)["message"] == "three \x1b[31m"


def test_errors_of_a_clean_run(folder):
    batchflow(folder, "run", "steps.py:scale", "in/*.csv", "--into", "out/")
    assert batchflow(folder, "errors", "out").stdout == "nothing failed\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("run", "steps.py:clean", "nothing/*.csv"), "no file matches 'nothing/*.csv' (looked in "),
        (("run", "steps.py:clena", "in/*.csv"), "steps.py has no function 'clena'; it has add, clean, load"),
        (("run", "steps.py", "in/*.csv"), "'steps.py' names no function: write it like steps.py:clean"),
        (("run", "gone.py:f", "in/*.csv"), "there is no file 'gone.py' (looked in "),
        (("run", "gone:f", "in/*.csv"), "cannot import 'gone': ModuleNotFoundError: No module named 'gone'"),
        (("run", "broken.py:f", "in/*.csv"), "cannot import 'broken.py': ModuleNotFoundError: No module named 'nowhere"),
        (("run", "steps.py:clean", "in"), "cannot tell what kind of input in is: name one of text, json"),
        (("run", "steps.py:clean", "in", "--read", "xml"), "cannot tell what kind of input in is"),
        (("run", "steps.py:clean", "in/*.csv", "--into", "in/"), "/in exists and was not made by batchflow"),
        (("run", "steps.py:clean", "in/*.csv", "--format", "xls", "--into", "o/"), "unknown output format 'xls'"),
        (("run", "steps.py:clean", "in/*.csv", "--cpus-per-task", "9999"), "one task asks for 9999 cpus"),
        (("run", "steps.py:clean", "in/*.csv", "--memory-per-task", "lots"), "'lots' is not an amount of bytes"),
        (("run", "steps.py:clean", "in/*.csv", "--max-errors", "few"), "--max-errors 'few' is not a number"),
        (("run", "steps.py:clean", "in/*.csv", "--arg", "5"), "--arg '5': write it like name=value"),
        (("run", "steps.py:clean", "in/*.csv", "--executor", "dask"), "unknown executor 'dask'"),
        (("plan", "steps.py:clean", "in/*.csv", "--workers", "0"), "but the job may use 0 cpus"),
        (("errors", "in"), "'in' is no output of batchflow"),
    ],
)
def test_wrong_usage_is_one_line_and_2(folder, arguments, text):
    done = batchflow(folder, *arguments, status=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("batchflow: ")
    assert text in line
    assert done.stdout == ""
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == [
        "broken.py", "in", "neighbour.py", "steps.py",
    ]  # fmt: skip


def test_help_loads_nothing_heavy(folder):
    code = "import sys, batchflow.cli\ntry:\n    batchflow.cli.main(['run', '--help'])\nfinally:\n    print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert "--max-errors" in done.stdout
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"pyarrow", "ray", "numpy", "tqdm", "cloudpickle", "msgspec", "multiprocessing", "asyncio"}


