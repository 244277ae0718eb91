"""Functions of scripts, notebooks and files that the command line names, and what these functions refer to."""

import json
import os
import subprocess
import sys

import pytest

import batchflow as bf

COMMAND = [sys.executable, "-m", "batchflow"]
STATE = {
    "lock": "import threading\nX = threading.Lock()",
    "database": "import sqlite3\nX = sqlite3.connect(':memory:')",
    "variable": "import contextvars\nX = contextvars.ContextVar('x')",
    "cached": "import functools\nclass A:\n    @functools.cached_property\n    def k(self):\n        return 1\nX = A()",
    "cache": "import functools\n@functools.lru_cache\ndef X():\n    return 1",
    "batchflow": "X = 1",
    "queue": "X = 1",
    "my-steps": "X = 1",
}


@pytest.fixture
def command(tmp_path):
    """Run the command line in a folder with one input and a file of steps."""

    def command(name, code, *arguments):
        if not (tmp_path / "in.txt").exists():
            (tmp_path / "in.txt").write_text("a\n")
        (tmp_path / f"{name}.py").write_text(code)
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PYTHONSAFEPATH": "1"},
        )

    return command


@pytest.mark.parametrize("executor", ["serial", "processes"])
@pytest.mark.parametrize("name", STATE)
def test_command_line_runs_files_with_any_state(command, name, executor):
    code = f"{STATE[name]}\ndef fn(line):\n    X\n    return {{'n': len(line)}}\n"
    done = command(name, code, "run", f"{name}.py:fn", "in.txt", "--quiet", "--executor", executor)
    assert (done.returncode, done.stdout, done.stderr) == (0, '{"n":1}\n', "")


@pytest.mark.parametrize("name", ["lock", "cache"])
def test_flows_of_files_with_any_state_run(command, name):
    code = f"{STATE[name]}\ndef fn(x):\n    X\n    return x\nimport batchflow as bf\nflow = bf.Flow('f')\nflow.step(fn, 1)\n"
    done = command(name, code, "flow", f"{name}.py:flow", "--executor", "processes", "--json")
    assert done.returncode == 0, done.stderr
    assert [step["state"] for step in json.loads(done.stdout)["steps"]] == ["succeeded"]


def test_module_runs_as_the_command_line(command):
    assert command("steps", "", "--version").stdout == f"batchflow {bf.__version__}\n"


def test_file_of_the_name_of_a_library_can_be_retried(command, tmp_path):
    code = "import os\ndef fn(line):\n    if line == 'a' and not os.path.exists('fixed'):\n        raise ValueError('no')\n    return {'n': 1}\n"
    (tmp_path / "in.txt").write_text("a\n")
    (tmp_path / "more.txt").write_text("b\n")
    assert (
        command("queue", code, "run", "queue.py:fn", "in.txt", "more.txt", "--into", "out/", "--quiet").returncode
        == 1
    )
    (tmp_path / "fixed").touch()
    done = command("queue", code, "retry", "out/")
    assert done.returncode == 0, done.stderr


SCRIPT = """
import functools, io, sys
import batchflow as bf

@functools.lru_cache(maxsize=7)
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

@functools.singledispatch
def kind(x):
    return "other"

@kind.register
def _(x: int):
    return "int"

class Shape:
    def __init__(self, x):
        self.x = x

    @functools.cached_property
    def area(self):
        return self.x ** 2

    @functools.cache
    def twice(self):
        return 2 * self.x

@kind.register(Shape)
def _(x):
    return "shape"

def work(x):
    shape = Shape(x)
    return [fibonacci(x), kind(x), kind("a"), kind(shape), shape.area, shape.area, shape.twice(), fibonacci.cache_parameters()["maxsize"]]

for executor in ("serial", "processes"):
    result = bf.map_records(work, bf.records([10]), executor=executor, progress=False)
    print(result.values, result.errors["message"].to_pylist())
    flow = bf.Flow("f")
    step = flow.step(fibonacci, 10)
    print(flow.run(executor=executor, progress=False)[step].value)
"""


def test_caches_and_dispatching_functions_of_a_script_work(script):
    line = "[[55, 'int', 'other', 'shape', 100, 100, 20, 7]] []\n55\n"
    assert script(SCRIPT).stdout == line * 2


def test_locks_and_variables_of_a_script_are_new_in_workers(script):
    code = """
    import contextvars, threading
    import batchflow as bf

    lock, again, local = threading.Lock(), threading.RLock(), threading.local()
    variable = contextvars.ContextVar("variable", default="default")
    bare = contextvars.ContextVar("bare")
    lock.acquire()
    variable.set("driver")

    def held():
        return lock.locked()

    def work(x):
        local.x = x
        free = lock.acquire(blocking=False)
        with again:
            return [free, held(), local.x, variable.get(), bare.get("none")]

    print(bf.map_records(work, bf.records([1]), executor="processes", progress=False).values)
    print(bf.map_records(lambda x: x, bf.records([1, lock]), executor="processes", progress=False).errors["message"].to_pylist())
    """
    assert (
        script(code).stdout == "[[True, True, 1, 'default', 'none']]\n[\"cannot pickle '_thread.lock' object\"]\n"
    )


def test_own_pool_in_a_worker_finds_helpers_of_the_script(script):
    code = """
    import multiprocessing as mp
    import batchflow as bf

    def helper(x):
        return x * x

    def pool(x):
        with mp.get_context("fork").Pool(1) as workers:
            return workers.map(helper, [x])

    result = bf.map_records(pool, bf.records([2]), executor="processes", progress=False)
    print(result.values, result.errors["message"].to_pylist())
    flow = bf.Flow("f")
    step = flow.step(pool, 3)
    print(flow.run(executor="processes", progress=False)[step].value)
    """
    assert script(code).stdout == "[[4]] []\n[9]\n"


def test_functions_of_a_spawned_main_module_reach_workers(script):
    code = """
    import multiprocessing as mp
    import batchflow as bf

    class Record:
        x = 5

    def double(record):
        return 2 * record.x

    def child():
        result = bf.map_records(double, bf.records([Record()]), executor="processes", progress=False)
        print(result.values, result.errors["message"].to_pylist())

    if __name__ == "__main__":
        process = mp.get_context("spawn").Process(target=child)
        process.start()
        process.join()
    """
    assert script(code).stdout == "[10] []\n"


def test_workers_warn_of_no_unclosed_files(script):
    code = "import batchflow as bf\nprint(bf.map_records(abs, bf.records([-1]), progress=False).values)"
    environment = dict(os.environ)
    os.environ["PYTHONWARNINGS"] = "error"
    try:
        done = script(code)
    finally:
        os.environ.clear()
        os.environ.update(environment)
    assert (done.stdout, done.stderr) == ("[1]\n", "")
