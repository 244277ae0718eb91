"""What a worker sees of the driver's process: each row of docs/workers.md, on every executor."""

import asyncio
import contextvars
import decimal
import importlib
import os
import signal
import sys
import warnings
from multiprocessing.managers import SyncManager
from pathlib import Path

import numpy as np
import pytest

import batchflow as bf

SIZES = [1, 500, 600, 4000, 5000, 200_000]
"""Numbers of 8 bytes: below and above each limit of transport."""


def run(fn, values, executor, **options):
    return bf.map_records(fn, bf.records(values), executor=executor, progress=False, **options)


def call(executor, fn, *args):
    """Return the value of one step."""
    flow = bf.Flow("f")
    step = flow.step(fn, *args)
    return flow.run(executor=executor, progress=False)[step].value


def both(executor, fn):
    """Return what a function gives as a job and as a step."""
    return [run(fn, [1], executor).values[0], call(executor, fn, 1)]


# --- values that a function writes to ------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_arrays_of_each_size_can_be_written_to(executor, size):
    def write(array):
        array[0] += 5
        return float(array[0])

    assert run(write, [np.ones(size)], executor).values == [6]
    assert call(executor, write, np.ones(size)) == 6
    flow = bf.Flow("f")
    made = flow.step(np.ones, size)
    steps = [flow.step(write, made, name=name) for name in "abc"]
    done = flow.run(executor=executor, progress=False)
    assert [done[step].value for step in steps] == [6, 6, 6]


@pytest.mark.parametrize("size", SIZES)
def test_arrays_of_args_are_read_only_at_each_size(executor, size):
    def write(x, array, frame):
        array[x] = 3

    argument = np.zeros(size)
    result = run(write, [0], executor, args={"array": argument, "frame": {"x": argument}})
    assert result.errors["message"].to_pylist() == ["assignment destination is read-only"]
    assert run(lambda x, array: float(array.copy()[0]), [0], executor, args={"array": argument}).values == [0]
    assert argument.flags.writeable


@pytest.mark.parametrize("size", SIZES)
def test_arrays_that_a_function_closes_over_can_be_written_to(remote, size):
    array = np.zeros(size)

    def write(x):
        array[0] = 3
        return float(array[0])

    assert run(write, [0], remote).values == [3]
    assert call(remote, write, 0) == 3
    assert array[0] == 0


@pytest.mark.parametrize("size", SIZES)
def test_read_only_array_stays_read_only(executor, size):
    def is_writable(array):
        return array.flags.writeable

    array = np.ones(size)
    array.flags.writeable = False
    assert run(is_writable, [array], executor).values == [False]
    assert call(executor, is_writable, array) is False


@pytest.mark.parametrize("size", SIZES)
def test_writes_of_a_function_reach_neither_driver_nor_steps(executor, size):
    def bump(array):
        array += 1
        return float(array[0])

    def same(one, other):
        one[0] = 7
        return float(other[0])

    mine = np.zeros(size)
    flow = bf.Flow("f")
    made = flow.step(np.zeros, size)
    first = flow.step(bump, made, name="first")
    second = flow.step(bump, made, name="second", after=first)
    own = flow.step(bump, mine)
    twice = flow.step(same, made, made)
    done = flow.run(executor=executor, progress=False, keep=True)
    assert [done[step].value for step in (first, second, own)] == [1, 1, 1]
    assert done[twice].value == done[made].value[0] == mine[0] == 0
    assert run(bump, [mine], executor).values == [1]
    assert mine[0] == 0


def test_rows_of_a_job_are_a_copy_for_each_step(executor):
    def rows(x):
        return {x}

    def empty(sets):
        return [one.pop() for one in sets]

    flow = bf.Flow("f")
    job = flow.map_records(rows, bf.records([1, 2]))
    first = flow.step(empty, job, name="first")
    second = flow.step(empty, job, name="second", after=first)
    done = flow.run(executor=executor, progress=False)
    assert [done[first].value, done[second].value] == [[1, 2], [1, 2]]


def test_mutable_records_and_arguments_of_driver_are_unchanged(executor):
    records, seen = [{"a": [1]}], []

    def change(record, seen):
        record["a"].append(2)
        seen.append(1)
        return len(record["a"])

    assert run(change, records, executor, args={"seen": seen}).values == [2]
    assert (records, seen) == ([{"a": [1]}], [])


# --- state of the process ------------------------------------------------------------------------------


def test_functions_run_in_the_directory_of_the_driver(executor, tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert both(executor, lambda x: os.getcwd()) == [str(tmp_path / name)] * 2


def test_directory_that_a_step_changes_to_is_left_after_it(executor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flow = bf.Flow("f")
    first = flow.step(os.chdir, "/")
    second = flow.step(os.getcwd, after=first)
    assert flow.run(executor=executor, progress=False)[second].value == str(tmp_path)
    run(lambda x: os.chdir("/"), [1], executor)
    assert os.getcwd() == str(tmp_path)
    assert both(executor, lambda x: os.getcwd()) == [str(tmp_path)] * 2


def test_job_runs_in_a_directory_that_was_removed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("gone")
    os.chdir("gone")
    os.rmdir("../gone")
    with bf.Processes(workers=1) as warm:
        assert [run(abs, [-1], name).values for name in ("serial", warm)] == [[1], [1]]
        assert call("serial", abs, -1) == call(warm, abs, -1) == 1


def test_variables_that_change_later_reach_warm_workers(executor, monkeypatch):
    def look(_):
        return os.environ.get("TEST_NEW"), os.environ.get("TEST_OLD")

    monkeypatch.setenv("TEST_NEW", "a")
    assert both(executor, look) == [("a", None)] * 2
    monkeypatch.setenv("TEST_NEW", "b")
    assert both(executor, look) == [("b", None)] * 2
    monkeypatch.delenv("TEST_NEW")
    monkeypatch.setenv("TEST_OLD", "c")
    assert both(executor, look) == [(None, "c")] * 2


def test_path_that_grows_later_reaches_warm_workers(executor, tmp_path, monkeypatch):
    run(abs, [1], executor)
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "state_of_path.py").write_text(f"def name(x):\n    return {folder!r}\n")
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    monkeypatch.setattr(sys, "path", [*sys.path, Path("/path/object"), 3, None])
    import state_of_path

    assert both(executor, state_of_path.name) == ["second"] * 2


def test_arguments_of_any_length_and_kind_reach_workers(executor, monkeypatch):
    for arguments in (["prog", "x" * 300_000, "\udcff"], ["prog", Path("a")], []):
        monkeypatch.setattr(sys, "argv", arguments)
        expected = list(arguments) if executor.name == "serial" else [str(argument) for argument in arguments]
        assert both(executor, lambda x: sys.argv) == [expected] * 2


def test_long_arguments_start_a_script(script):
    code = "import batchflow as bf, sys\nprint(bf.map_records(lambda x: len(sys.argv), bf.records([1]), progress=False).values)"
    assert script(code, *["x" * 100] * 2500).stdout == "[2501]\n"


def test_recursion_limit_of_the_driver_holds_in_workers(executor):
    def deep(n):
        return 0 if n == 0 else 1 + deep(n - 1)

    before = sys.getrecursionlimit()
    sys.setrecursionlimit(9000)
    try:
        assert run(deep, [3000], executor).values == [3000]
        assert call(executor, deep, 3000) == 3000
    finally:
        sys.setrecursionlimit(before)


def test_filters_of_warnings_hold_in_workers(executor):
    def warn(x):
        warnings.warn("careful", UserWarning, stacklevel=1)
        return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert run(warn, [1], executor).values == [1]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="care", category=UserWarning)
        assert run(warn, [1], executor).errors["error_type"].to_pylist() == ["UserWarning"]


def test_context_of_decimal_holds_in_workers(executor):
    def third(x):
        return str(decimal.Decimal(1) / 3)

    with decimal.localcontext() as context:
        context.prec = 5
        context.rounding = decimal.ROUND_UP
        assert both(executor, third) == ["0.33334"] * 2
    assert both(executor, third) == ["0." + "3" * 28] * 2


def test_proxies_of_a_manager_work_in_workers(executor):
    with SyncManager() as manager:
        shared = manager.list()
        run(lambda x, shared: shared.append(x), [1, 2, 3], executor, args={"shared": shared})
        assert sorted(shared) == [1, 2, 3]


@pytest.mark.parametrize("name", ["serial", "processes"])
@pytest.mark.parametrize(
    ("flags", "expected"),
    [(["-O"], "[1, 2]"), ([], "[2]"), (["-W", "error"], "[]"), (["-X", "utf8=1"], "[2]"), (["-I"], "[2]")],
)
def test_flags_of_the_interpreter_hold_in_workers(tmp_path, name, flags, expected):
    import subprocess

    code = f"""
import sys, warnings
sys.path.insert(0, {str(Path(bf.__file__).parents[1])!r})
import batchflow as bf
def check(x):
    assert x > 1
    if {flags == ["-W", "error"]}:
        warnings.warn("w")
    return x
result = bf.map_records(check, bf.records([1, 2]), executor={name!r}, progress=False)
result.errors
print(result.values)
"""
    done = subprocess.run(
        [sys.executable, *flags, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == f"{expected}\n", done.stderr


@pytest.mark.parametrize("into", [False, True])
def test_workers_draw_numbers_of_their_own(tmp_path, into):
    def draw(n):
        import random

        import numpy as np

        return {"x": float(np.random.rand()), "y": random.random(), "worker": os.getpid()}

    with bf.Processes(workers=3) as warm:
        result = run(draw, range(60), warm, chunk=1, into=str(tmp_path / "out") if into else None)
        rows = result.table.to_pylist()
    assert len(rows) == 60
    assert len({row["x"] for row in rows}) == len({row["y"] for row in rows}) == 60


def test_workers_of_an_executor_agree_on_hashes_of_text():
    def look(x):
        return hash("text"), os.getpid()

    with bf.Processes(workers=3) as warm:
        values = run(look, range(60), warm, chunk=1).values
    assert len({value for value, _ in values}) == 1


@pytest.mark.cluster
def test_workers_of_a_ray_of_our_own_agree_on_hashes_of_text(script):
    code = """
    import batchflow as bf

    if __name__ == "__main__":
        result = bf.map_records(lambda x: hash("text"), bf.records(range(20)), executor=bf.Ray(), progress=False, chunk=1)
        print(len(result), len(set(result.values)))
    """
    assert script(code).stdout == "20 1\n"


def test_standard_input_of_workers_is_empty(remote):
    assert run(lambda x: sys.stdin is None or sys.stdin.read(), [1], remote).values[0] in ("", True)


# --- what is not taken over: documented, and refused where it cannot work -------------------------------


def test_state_of_modules_is_that_of_the_file(remote, tmp_path, monkeypatch):
    (tmp_path / "state_of_module.py").write_text("LIMIT = 0\ndef over(x):\n    return x > LIMIT\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import state_of_module

    state_of_module.LIMIT = 10
    assert run(state_of_module.over, [5], remote).values == [True]
    assert run(state_of_module.over, [5], "serial").values == [False]


def test_module_without_a_file_is_one_error_of_the_job(remote, monkeypatch):
    module = type(sys)("made_at_run_time")
    exec("def fn(x):\n    return x", module.__dict__)
    monkeypatch.setitem(sys.modules, "made_at_run_time", module)
    with pytest.raises(bf.errors.FunctionError, match="a worker cannot load fn: ModuleNotFoundError"):
        run(module.fn, [1, 2, 3], remote)
    flow = bf.Flow("f")
    job = flow.map_records(module.fn, bf.records([1, 2, 3]))
    step = flow.step(module.fn, 1)
    done = flow.run(executor=remote, progress=False, on_error="continue")
    assert [done[step].state, done[job].state] == ["failed", "failed"]
    assert done.errors.num_rows == 2


# --- a loop that runs ----------------------------------------------------------------------------------


def test_async_functions_run_beside_a_running_loop(executor):
    seen = contextvars.ContextVar("seen", default=0)

    async def plus(x):
        await asyncio.sleep(0)
        return x + 1

    async def numbers(x):
        yield x
        yield x + 1

    async def main():
        seen.set(1)
        return [run(plus, [1], executor).values, call(executor, plus, 1), call(executor, numbers, 1)]

    assert asyncio.run(main()) == [[2], 2, [1, 2]]


def test_reloaded_module_is_fresh_in_warm_workers(executor, tmp_path, monkeypatch):
    file = tmp_path / "state_reloaded.py"
    file.write_text("def fn(x):\n    return 'old'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import state_reloaded

    assert both(executor, state_reloaded.fn) == ["old"] * 2
    file.write_text("def fn(x):\n    return 'newer'\n")
    importlib.reload(state_reloaded)
    assert both(executor, state_reloaded.fn) == ["newer"] * 2


def test_edited_module_is_fresh_in_warm_workers(tmp_path, monkeypatch):
    file = tmp_path / "state_edited.py"
    file.write_text("def fn(x):\n    return 'old'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    import state_edited

    with bf.Processes(workers=1) as warm:
        assert both(warm, state_edited.fn) == ["old"] * 2
        stream = bf.stream_batches(abs, bf.records(range(9)), per="record", chunk=1, executor=warm, progress=False)
        next(stream)
        file.write_text("def fn(x):\n    return 'newer'\n")
        with pytest.raises(
            bf.errors.ExecutorError, match="state_edited was reloaded or edited while another job runs"
        ):
            run(state_edited.fn, [1], warm)
        stream.close()
        assert both(warm, state_edited.fn) == ["newer"] * 2


# --- what belongs to each process ----------------------------------------------------------------------


def test_handlers_and_context_of_the_driver_stay_there(remote):
    variable = contextvars.ContextVar("variable_of_the_driver")
    name, token = variable.name, variable.set("set")
    before = signal.signal(signal.SIGUSR1, lambda *_: None)

    def observe(_):
        names = [context.name for context in contextvars.copy_context()]
        return signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL, name in names

    try:
        assert run(observe, [1], remote).values == [(True, False)]
    finally:
        signal.signal(signal.SIGUSR1, before)
        variable.reset(token)


def test_directory_change_in_a_chunk_ends_with_it(executor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "below").mkdir()

    def leave(n):
        here = os.getcwd()
        os.chdir(tmp_path / "below")
        return os.path.relpath(here, tmp_path)

    assert run(leave, range(4), executor, chunk=2).values == [".", "below", ".", "below"]
    assert os.getcwd() == str(tmp_path)
