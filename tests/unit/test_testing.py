import os
import pickle
import signal
import subprocess
import sys

import pytest
from seen import seen

import batchflow as bf
from batchflow import testing
from batchflow.testing import Script, ScriptedError, UnpicklableError


def ending(tmp_path, manner, before=""):
    """Run a script in a process of its own; return how that ended."""
    code = f"""
from batchflow.testing import Script
{before}
Script({str(tmp_path)!r}, {{1: {manner!r}}})(1)
"""
    return subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)


def test_attempt_after_attempt(tmp_path):
    script = Script(tmp_path / "new" / "folder", {13: ["raise", KeyError, ValueError("no"), "ok"]})
    with pytest.raises(ScriptedError, match=r"^13, attempt 1$"):
        script(13)
    with pytest.raises(KeyError):
        script(13)
    with pytest.raises(ValueError, match="no"):
        script(13)
    assert [script(13), script(13)] == [13, 13]
    assert script.attempts(13) == 5


def test_the_last_manner_goes_on(tmp_path):
    script = Script(tmp_path, {"a": "raise", "b": ["ok", "raise"]})
    script("b")
    for name in "aabb":
        with pytest.raises(ScriptedError):
            script(name)
    assert (script.attempts("a"), script.attempts("b"), script.attempts("c")) == (2, 3, 0)


def test_whoever_is_not_in_the_table_is_counted_too(tmp_path):
    script = Script(tmp_path, {})
    assert [script("x/../y"), script("x/../y"), script((1, "é"))] == ["x/../y", "x/../y", (1, "é")]
    assert (script.attempts("x/../y"), script.attempts((1, "é"))) == (2, 1)


def test_equal_inputs_are_one(tmp_path):
    script = Script(tmp_path, {13: "raise"})
    with pytest.raises(ScriptedError):
        script(13.0)
    assert script.attempts(13) == script.attempts(13.0) == 1


def test_a_function_with_arguments_and_inputs_that_cannot_be_hashed(tmp_path):
    script = Script(
        tmp_path, {2: "raise"}, lambda row, more, times: [row["x"] + more] * times, key=lambda row: row["x"]
    )
    assert script({"x": 1}, 5, times=2) == [6, 6]
    with pytest.raises(ScriptedError):
        script({"x": 2}, 5, times=2)
    assert (script.attempts(1), script.attempts(2)) == (1, 1)


def test_for_what_is_no_function_of_the_input(tmp_path):
    script = Script(tmp_path, {"setup": ["raise", "ok"]}, key=lambda row: row["x"])
    with pytest.raises(ScriptedError):
        script.play("setup")
    script.play("setup")
    assert script.attempts("setup") == 2


def test_a_copy_counts_on_wherever_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = Script("here", {1: ["ok", "raise"]})
    script(1)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(ScriptedError, match="1, attempt 2"):
        pickle.loads(pickle.dumps(script))(1)
    assert script.attempts(1) == 2


@pytest.mark.parametrize("table", [{1: "rise"}, {1: ["ok", "rise"]}])
def test_unknown_manner(tmp_path, table):
    with pytest.raises(
        bf.errors.UsageError, match=r"^1: unknown manner 'rise': use an exception or one of ok, raise,"
    ):
        Script(tmp_path, table)


def test_no_manner(tmp_path):
    with pytest.raises(bf.errors.UsageError, match=r"^1 has no manner"):
        Script(tmp_path, {1: []})


def test_an_error_that_cannot_be_pickled(tmp_path):
    with pytest.raises(UnpicklableError, match="1, attempt 1") as caught:
        Script(tmp_path, {1: "unpicklable raise"})(1)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(caught.value)


def test_sys_exit(tmp_path):
    with pytest.raises(SystemExit) as caught:
        Script(tmp_path, {1: "sys.exit"})(1)
    assert caught.value.code == testing.EXIT_STATUS


@pytest.mark.parametrize(
    ("manner", "status"),
    [("os._exit", testing.EXIT_STATUS), ("SIGKILL", -signal.SIGKILL), ("SIGSEGV", -signal.SIGSEGV)],
)
def test_ends_its_process_and_is_counted(tmp_path, manner, status):
    assert ending(tmp_path, manner).returncode == status
    assert Script(tmp_path, {}).attempts(1) == 1
    assert len(os.listdir(tmp_path)) == 1  # no core


def test_memory(tmp_path):
    cap = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))"
    assert ending(tmp_path, "memory", cap).stderr.endswith("MemoryError\n")
    assert Script(tmp_path, {}).attempts(1) == 1


ALARM = """
import signal
def ring(*_):
    raise TimeoutError
signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.2)
"""


def test_a_hang_hears_signals(tmp_path):
    assert ending(tmp_path, "hang", ALARM).stderr.endswith("TimeoutError\n")


def test_a_hang_in_c_does_not(tmp_path):
    """The alarm rings, and the kernel ends the process for its use of the processor, which it spends in vain."""
    cap = f"{ALARM}\nimport resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 2))"
    done = ending(tmp_path, "hang in C", cap)
    assert done.returncode in (-signal.SIGXCPU, -signal.SIGKILL)
    assert "TimeoutError" not in done.stderr
    assert Script(tmp_path, {}).attempts(1) == 1


def test_many_processes_count_exactly(tmp_path):
    code = f"""
from batchflow.testing import Script
script = Script({str(tmp_path)!r}, {{}})
print(*(script._count("x") for _ in range(500)))
"""
    started = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    numbers = [int(number) for process in started for number in process.communicate()[0].split()]
    assert sorted(numbers) == list(range(1, 2001))
    assert Script(tmp_path, {}).attempts("x") == 2000


def test_across_executors(tmp_path, executor):
    script = Script(tmp_path, {13: ["raise", "ok"], 7: ValueError("x")})
    result = bf.map_records(script, bf.records(range(20)), executor=executor, chunk=5, retry=bf.Retry(attempts=2))
    assert seen(result).values == [x for x in range(20) if x != 7]
    rows = result.errors.select(["record", "error_type", "message", "attempts"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [(8, "ValueError", "x", 1)]
    assert [script.attempts(x) for x in range(20)] == [2 if x == 13 else 1 for x in range(20)]
