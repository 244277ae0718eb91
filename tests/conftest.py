"""Executors that stay warm for the whole session, and the watch that nothing is left of them."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # before ray is imported
os.environ.setdefault("BATCHFLOW_EXECUTOR", "processes")  # whichever test has started Ray by now

import crash
import hypothesis
import pytest
import s3
from leftovers import children, shared_memory

import batchflow as bf

s3.server.announce()  # before any executor starts: its workers know then where the tests' own S3 server will be

hypothesis.settings.register_profile("suite", deadline=None)  # a busy machine turns no example red
hypothesis.settings.load_profile("suite")

NAMES = ("serial", "processes", "ray")


@pytest.fixture(scope="session", autouse=True)
def nothing_left():
    """After the session no process and no shared memory is left that it made."""
    before = children(), shared_memory()
    yield
    ray = sys.modules.get("ray")
    assert ray is None or not ray.is_initialized()
    assert children() - before[0] == set()
    assert shared_memory() - before[1] == set()


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory):
    """Keep what a Ray says out of the home of who runs the tests."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """Hear Ctrl-C, and have what is started hear it: a shell has what it runs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def warm(nothing_left):
    """Return an executor by name, started once for the session."""
    made = {}

    def executor(name):
        if name not in made:
            if name == "ray":
                _start_ray()
            made[name] = {"serial": bf.Serial, "processes": bf.Processes, "ray": bf.Ray}[name]().__enter__()
        return made[name]

    yield executor
    for each in made.values():
        each.__exit__(None, None, None)
    if "ray" in made:
        import ray

        assert ray.is_initialized()  # a Ray that was there before us stays
        ray.shutdown()


def _start_ray():
    import batchflow.executors.ray.cluster as ours

    for name, value in ours.SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=500_000_000,
    )


@pytest.fixture(params=NAMES)
def executor(request, warm):
    """Each kind of executor, warm."""
    return warm(request.param)


@pytest.fixture(params=["processes", "ray"])
def remote(request, warm):
    """Each kind of executor with processes of its own, warm."""
    return warm(request.param)


@pytest.fixture
def fused(monkeypatch):
    """End runs in the middle of a step that reaches the disk; called with the steps to let pass."""
    return crash.wire(monkeypatch)


@pytest.fixture
def script(tmp_path):
    """Run Python code as a script, which has a ``__main__`` of its own, and return what it printed."""

    def run(code, *arguments, check=True):
        path = Path(tmp_path, "script.py")
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        path.write_text(textwrap.dedent(code))
        done = subprocess.run(
            [sys.executable, str(path), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            cwd=tmp_path,
            env=environment,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run
