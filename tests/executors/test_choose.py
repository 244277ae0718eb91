"""Which executor a job gets that names none."""

import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap
import types

import pytest

import batchflow as bf
from batchflow.executors import choose


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """No Ray in this process, and nothing in the environment that names an executor."""
    monkeypatch.delenv("BATCHFLOW_EXECUTOR", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delitem(sys.modules, "ray", raising=False)


@pytest.mark.parametrize("given", [2, bf.Ray, bf.Serial])
def test_what_is_no_executor_is_refused(given):
    with pytest.raises(
        bf.errors.UsageError, match=r"is none: give one like bf\.Ray\(\), or a name: serial, processes"
    ):
        bf.map_records(len, bf.records(["a"]), executor=given)


def test_worker_processes_by_default():
    assert isinstance(choose(None), bf.Processes)


@pytest.mark.parametrize(("name", "kind"), [("serial", bf.Serial), ("processes", bf.Processes), ("ray", bf.Ray)])
def test_by_name(monkeypatch, name, kind):
    assert isinstance(choose(name), kind)
    monkeypatch.setenv("BATCHFLOW_EXECUTOR", name)
    assert isinstance(choose(None), kind)
    assert isinstance(choose("serial"), bf.Serial)


def test_an_executor_is_taken_as_it_is():
    executor = bf.Serial()
    assert choose(executor) is executor


def test_ray_where_it_runs_or_is_needed(monkeypatch):
    assert isinstance(choose(None, needs_ray=True), bf.Ray)
    fake = types.ModuleType("ray")
    fake.is_initialized = lambda: True
    monkeypatch.setitem(sys.modules, "ray", fake)
    assert isinstance(choose(None), bf.Ray)
    fake.is_initialized = lambda: False
    assert isinstance(choose(None), bf.Processes)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert isinstance(choose(None), bf.Ray)


def test_unknown_name():
    with pytest.raises(bf.errors.UsageError, match="unknown executor 'dask': use one of serial, processes, ray"):
        choose("dask")


def test_no_workers():
    with pytest.raises(bf.errors.UsageError, match="at least one worker"):
        bf.Processes(0)


@pytest.fixture
def own_ray():
    """Run Python code in a process with a temporary and a state folder of its own; return what it printed, and both."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # short enough for the names of Ray's sockets
        made = [pathlib.Path(folder, name) for name in ("t", "s")]
        for each in made:
            each.mkdir()

        def run(code):
            named = {"TMPDIR": str(made[0]), "XDG_STATE_HOME": str(made[1])}
            environment = os.environ | named | {"RAY_AUTH_MODE": "disabled", "BATCHFLOW_EXECUTOR": "ray"}
            done = subprocess.run(
                [sys.executable, "-c", textwrap.dedent(code)],
                env=environment,
                capture_output=True,
                text=True,
                timeout=100,
                check=True,
            )
            return done, *made

        yield run


@pytest.mark.cluster
def test_a_ray_of_our_own_says_nothing_and_the_summary_names_what_it_said(own_ray):
    done, temporary, state = own_ray(
        """
        import os
        import batchflow as bf

        def shown(number):                       # as C code prints; what Python prints is told by the driver
            os.write(1, f"number {number}\\n".encode())
            os.write(2, f"error {number}\\n".encode())
            return number

        result = bf.map_records(shown, bf.records(range(3)))
        print(sum(result.values), result.report.logs)
        print(result.report)
        """
    )
    [path] = (state / "batchflow").iterdir()
    lines = done.stdout.splitlines()
    assert (lines[0], lines[-1], done.stderr) == (f"3 {path}", f"messages of ray: {path}", "")
    kept = path.read_text()
    assert "Started a local Ray instance." in kept  # of this process
    assert "==> raylet.out <==" in kept  # of a daemon
    assert {f"{word} {number}" for word in ("number", "error") for number in range(3)} <= set(kept.splitlines())
    assert list(temporary.iterdir()) == []  # and nothing else is left


@pytest.mark.cluster
def test_few_files_of_rays_before_are_kept(own_ray):
    done, _, state = own_ray(
        """
        import os, pathlib
        import batchflow as bf
        from batchflow.executors.ray.logs import folder

        folder().mkdir()
        for day in range(10, 20):
            (folder() / f"ray-202001{day}-000000-1.log").touch()
        (folder() / "mine.log").touch()
        print(bf.map_records(str, bf.records(range(3))).values)
        """
    )
    names = sorted(path.name for path in (state / "batchflow").iterdir())
    assert (done.stdout, done.stderr) == ("['0', '1', '2']\n", "")
    assert names[:6] == ["mine.log", *(f"ray-202001{day}-000000-1.log" for day in range(15, 20))]
    assert len(names) == 7


@pytest.mark.cluster
def test_a_home_that_cannot_be_written_costs_the_messages_only(own_ray):
    done, _, _ = own_ray(
        """
        import os
        os.environ["XDG_STATE_HOME"] = "/dev/null"
        import batchflow as bf
        result = bf.map_records(str, bf.records(range(3)))
        print(result.values, repr(result.report.logs))
        """
    )
    assert (done.stdout, done.stderr) == ("['0', '1', '2'] ''\n", "")


@pytest.mark.cluster
@pytest.mark.parametrize("before", ["", "pdb.set_trace"])
def test_a_ray_that_was_stopped_leaves_breakpoint_as_it_was(own_ray, before):
    done, _, _ = own_ray(
        f"""
        import os
        before = {before!r}
        if before:
            os.environ["PYTHONBREAKPOINT"] = before
        import batchflow as bf
        print(bf.map_records(str, bf.records(range(3))).values, os.environ.get("PYTHONBREAKPOINT", ""))
        """
    )
    assert (done.stdout, done.stderr) == (f"['0', '1', '2'] {before}\n", "")
