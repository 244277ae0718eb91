"""The command line, in a process of its own: output, exit status, refusals in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from batchflow.cli import main
from batchflow.core.package import __version__

STEPS = """
import os
import signal

import neighbour

none = None

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

async def slow(row):
    return row

def add(row, offset):
    return {"n": row["n"] + offset}

def odd(row):
    return {"n": float("nan"), "of": [float("inf"), 0.5]}

def refuse(table):
    if table.num_rows > 1:
        raise ValueError("not\\nthese")
    return table

def wait(row):
    if os.path.exists("pid"):
        return row
    with open("pid.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename("pid.new", "pid")
    signal.pause()
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "steps.py").write_text(STEPS)
    (tmp_path / "neighbour.py").write_text("FACTOR = 2\n")
    (tmp_path / "broken.py").write_text("import nowhere_to_be_found\n")
    (tmp_path / "missing.py").write_text("open('no such file')\n")
    (tmp_path / "leaves.py").write_text("import sys\nsys.exit('bye\\nbye')\n")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.csv").write_text("n\n1\n2\n")
    (tmp_path / "in/b.csv").write_text("n\n3\n4\n")
    return tmp_path


COMMAND = [sys.executable, "-m", "batchflow.cli"]
ENVIRONMENT = os.environ | {"BATCHFLOW_EXECUTOR": "processes"}


def batchflow(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert done.returncode == status, done.stderr
    return done


TYPES = "batchflow: types n: int, from the first 1,000 rows of 2 files"
"""What a run states of its input in its first line."""


def test_run_writes_the_output_and_reports_failures(folder):
    done = batchflow(folder, "run", "steps.py:clean", "in/*.csv", "--into", "out/", status=1)
    assert pq.read_table(folder / "out/part-00000.parquet")["n"].to_pylist() == [2, 4, 8]
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[:2] == [TYPES, "4 records in, 3 rows out, 1 failed, 0 retries"]
    assert lines[3].startswith("workers' time: ")
    assert lines[4:] == [
        r"      1 x ValueError in call: in/b.csv, record 1: three \x1b[31m",
        "output in out/; errors and report in .out_batchflow/",
        "next: batchflow errors out/ --all; once fixed, batchflow retry out/ --version 2",
    ]


def test_a_run_without_failures_ends_with_0_and_prints_rows_where_there_is_no_into(folder):
    done = batchflow(folder, "run", "steps:scale", "in/a.csv", "--arg", "by=10", "--arg", "unit=km", "--quiet")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"n": 10, "unit": "km"},
        {"n": 20, "unit": "km"},
    ]
    assert done.stderr == ""


def test_setup_and_batches(folder):
    done = batchflow(folder, "run", "steps.py:add", "in", "--setup", "steps.py:load", "--read", "csv", "--quiet")
    assert [json.loads(line)["n"] for line in done.stdout.splitlines()] == [101, 102, 103, 104]
    done = batchflow(folder, "run", "steps.py:whole", "in", "--per", "batch", "--read", "csv", "--quiet")
    assert [json.loads(line)["n"] for line in done.stdout.splitlines()] == [1, 2, 3, 4]


def test_calls_that_wait(folder):
    arguments = (
        "steps.py:slow",
        "in",
        "--read",
        "csv",
        "--concurrency",
        "2",
        "--rate",
        "100/s burst 5",
        "--quiet",
    )
    done = batchflow(folder, "run", *arguments)
    assert [json.loads(line)["n"] for line in done.stdout.splitlines()] == [1, 2, 3, 4]
    assert (
        "2 at once in each worker, at most 100 calls/s burst 5 in all"
        in batchflow(folder, "plan", *arguments).stdout
    )
    done = batchflow(folder, "run", "steps.py:slow", "in/*.csv", "--rate", "soon", status=2)
    assert done.stderr.startswith("batchflow: rate='soon' is not a rate: write calls per second")


def test_max_errors_stops_with_3(folder):
    done = batchflow(folder, "run", "steps.py:clean", "in/*.csv", "--max-errors", "0", status=3)
    assert "stopped: more than max_errors=0 failed; 1 record failed: in/b.csv, record 1: ValueError" in done.stderr


def test_plan_runs_nothing(folder):
    done = batchflow(
        folder, "plan", "steps.py:clean", "in/*.csv", "--into", "out/", status=1
    )  # one of the three records fails
    assert "input     csv: 2 files, 12 B" in done.stdout
    assert "function  steps.clean, once for each record" in done.stdout
    assert not (folder / "out").exists()


def test_errors_shows_groups_rows_or_json(folder):
    batchflow(folder, "run", "steps.py:clean", "in/*.csv", "--into", "out.parquet", status=1)
    grouped = batchflow(folder, "errors", "out.parquet", status=1).stdout
    assert grouped == "      1 x ValueError in call: in/b.csv, record 1: three \\x1b[31m\n"
    whole = batchflow(folder, "errors", "out.parquet", "--all", status=1).stdout
    assert whole.startswith(
        "in/b.csv, record 1 [2:4] call, 1 attempt\n    ValueError: three \\x1b[31m\n    {'n': 3}\n"
    )
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
        (("run", "steps.py:none.clean", "in/*.csv"), "steps.py has no function 'none.clean'"),
        (("run", "missing.py:f", "in/*.csv"), "cannot import 'missing.py': FileNotFoundError: "),
        (("run", "leaves.py:f", "in/*.csv"), r"cannot import 'leaves.py': SystemExit: bye\nbye"),
        (("run", "steps.py:scale", "in/*.csv", "--chunk", "²"), "'²' is not an amount of bytes"),
        (("run", "steps.py:scale", "in/*.csv", "--max-errors", "²"), "--max-errors '²' is not a number"),
        (("run", "steps.py:scale", "in/*.csv", "--cpus-per-task", "nan"), "batchflow: "),
        (("run", "steps.py:scale", "in/*.csv", "--part-size", "9" * 400), "batchflow: "),
        (("run", "steps.py:scale", "in/*.csv", "--into", "x" * 300 + "/"), "batchflow: "),
        (
            ("run", "steps.py:scale", "in/*.csv", "--into", "~nobody-of-this-name/"),
            "a folder of that name is ./~nobody-of-this-name/",
        ),
        (("run", "gone:f", "in/*.csv"), "cannot import 'gone': ModuleNotFoundError: No module named 'gone'"),
        (
            ("run", "broken.py:f", "in/*.csv"),
            "cannot import 'broken.py': ModuleNotFoundError: No module named 'nowhere",
        ),
        (
            ("run", "steps.py:clean", "steps.py", "in"),
            "steps.py, in is (steps.py and in/a.csv differ): add one of --read text, --read",
        ),
        (
            ("run", "steps.py:scale", "in/*.csv", "--into", "/proc/none/"),
            "cannot write to /proc/none: No such file or directory; give another",
        ),
        (("run", "steps.py:clean", "in", "--read", "xml"), "unknown kind of input 'xml': use one of text, json"),
        (
            ("run", "steps.py:clean", "in/*.csv", "--into", "in/"),
            "/in: the input in/*.csv is read from there; choose another output",
        ),
        (("run", "steps.py:clean", "in/*.csv", "--format", "xls", "--into", "o/"), "unknown output format 'xls'"),
        (("run", "steps.py:clean", "in/*.csv", "--cpus-per-task", "9999"), "one task asks for 9999 cpus"),
        (
            ("run", "steps.py:clean", "in/*.csv", "--gpus-per-task", "1", "--executor", "processes"),
            "GPUs and custom",
        ),
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
        "broken.py",
        "in",
        "leaves.py",
        "missing.py",
        "neighbour.py",
        "steps.py",
    ]


def test_the_version(folder):
    assert batchflow(folder, "--version", status=0).stdout == f"batchflow {__version__}\n"


def test_a_file_is_imported_once_however_it_is_written(folder):
    (folder / "once.py").write_text(
        "import os\nos.mkdir('imported')\ndef load():\n    return 1\n"
        "def use(row, one):\n    return row['n'] + one\n"
    )
    done = batchflow(folder, "run", "once.py:use", "in/a.csv", "--setup", "../" + folder.name + "/once.py:load")
    assert done.stdout.split() == ["2", "3"]


def test_numbers_that_json_has_not_are_null(folder):
    done = batchflow(folder, "run", "steps.py:odd", "in/a.csv", "--quiet")
    assert done.stdout.splitlines() == ['{"n":null,"of":[null,0.5]}'] * 2


@pytest.mark.parametrize("into", ["s.parquet", "out/"])
def test_errors_are_found_after_a_stop(folder, into):
    batchflow(folder, "run", "steps.py:clean", "in/*.csv", "--into", into, "--max-errors", "0", status=3)
    assert "1 x ValueError in call: in/b.csv" in batchflow(folder, "errors", into, status=1).stdout


def test_run_whose_combine_raises_exits_with_1_and_why(folder):
    done = batchflow(
        folder, "run", "steps.py:scale", "in/*.csv", "--combine", "steps.py:refuse", "--chunk", "2B", status=1
    )
    assert done.stderr.startswith(f"{TYPES}\nbatchflow: combine= failed: ValueError: not\nthese\n")
    assert 'cli.py", line' not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("run", "steps.py:scale", "in/*.csv", "--quiet"), ("plan", "steps.py:scale", "in/*.csv")],
)
def test_a_reader_that_goes_away_is_no_error(folder, arguments):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, stdout=writing, stderr=subprocess.PIPE, check=False, env=ENVIRONMENT
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_ctrl_c_ends_with_130_and_leaves_nothing_running(folder):
    arguments = ("run", "steps.py:wait", "in/*.csv", "--into", "out/", "--quiet")
    running = subprocess.Popen(
        [*COMMAND, *arguments], cwd=folder, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, process_group=0
    )
    while not (folder / "pid").exists():
        assert running.poll() is None
        time.sleep(0.01)
    left = [
        *psutil.Process(running.pid).children(recursive=True),
        psutil.Process(int((folder / "pid").read_text())),
    ]
    running.send_signal(signal.SIGINT)
    assert running.stderr.readline() == "\n"
    assert running.stderr.readline().startswith("batchflow: finishing what is running, 10 s at most")
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert (running.returncode, told.splitlines()) == (
        130,
        [
            f"batchflow: interrupted: what is done is kept in {folder}/out; run the same again to go on",
            "  batchflow run steps.py:wait 'in/*.csv' --into out/ --quiet",
        ],
    )
    assert not [child for child in left if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    assert sorted(path.name for path in (folder / ".out_batchflow").rglob("*")) == [
        "errors.pq",
        "ledger.log",
        "pieces",
        "plan.json",
        "report.html",
        "report.json",
        "trace.json",
    ]
    sofar = batchflow(folder, "errors", "out/")
    assert (sofar.stdout, sofar.stderr) == ("nothing failed\n", "so far: the job has not come to its end\n")
    batchflow(folder, *arguments)
    assert pq.read_table(folder / "out/part-00000.parquet")["n"].to_pylist() == [1, 2, 3, 4]
    assert batchflow(folder, "errors", "out/").stderr == ""


def test_help_loads_nothing_heavy(folder):
    code = "import sys, batchflow.cli\ntry:\n    batchflow.cli.main(['run', '--help'])\nfinally:\n    print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert "--max-errors" in done.stdout
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"pyarrow", "ray", "numpy", "tqdm", "cloudpickle", "msgspec", "multiprocessing", "asyncio"}


def test_csv_is_read_as_the_command_says(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("id;at\n07;1\n8;2\n")
    (tmp_path / "steps.py").write_text("def same(row):\n    return row\n")
    run = ["run", "steps.py:same", "in.csv", "--executor", "serial", "--quiet"]
    assert main([*run, "--delimiter", ";", "--types", "at=float"]) == 0
    assert capsys.readouterr().out == '{"id":"07","at":1.0}\n{"id":"8","at":2.0}\n'
    assert main([*run, "--delimiter", ";", "--into", "out/", "--types", "at=str", "--types", "id=int"]) == 0
    assert main(["retry", "out/", "--executor", "serial", "--quiet"]) == 0
    for more, told in (
        (["--types", "float"], "--types 'float': write it like amount=float"),
        (["--types", "a=float", "--read", "text"], "--types is for CSV, and the input is text"),
        (["--delimiter", ";", "--types", "ids=float"], "the columns are id, at; did you mean 'id'?"),
        (["--types", "id;at=text"], "'text' is not a type that a CSV column can have: use one of str, int, float"),
    ):
        assert main([*run, *more]) == 2
        assert told in capsys.readouterr().err
