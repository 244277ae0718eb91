"""Which executor a job gets that names none."""

import os
import subprocess
import sys
import tempfile
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
    with pytest.raises(ValueError, match="at least one worker"):
        bf.Processes(0)


@pytest.mark.cluster
def test_a_ray_of_our_own_leaves_nothing_in_the_temporary_folder():
    code = (
        "import batchflow as bf\n"
        "print(sum(bf.map_records(lambda x: x + 1, bf.records(range(10)), executor='ray').values))"
    )
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # short enough for the names of Ray's sockets
        environment = os.environ | {"TMPDIR": folder, "RAY_AUTH_MODE": "disabled"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100, check=True
        )
        assert done.stdout == "55\n"
        assert os.listdir(folder) == []
