"""A head node of Ray with a job server, started for tests and ended with them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from typing import NamedTuple

import psutil
import pytest

QUIET = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_SCHEDULER_EVENTS": "0"}


PORTS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
    "ray-client-server-port",
)
"""All that are the same in each Ray otherwise: others may run on this machine."""


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def environment(**more):
    """Return an environment in which nothing says how this test run itself is made."""
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BATCHFLOW_", "RAY_"))}
    return kept | QUIET | {"PATH": path} | more


def of_session(folder):
    """Return the processes whose command names the folder of our Ray."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(folder in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


class Head(NamedTuple):
    """Where a head node is reached."""

    jobs: str
    """The job server."""
    client: str
    """The server of programs that are on no node."""
    node: str
    """The cluster, for programs on this machine."""


TRIES = 2
"""Of starting a head node: on a busy machine Ray gives up waiting for its own daemons."""


@contextmanager
def head(python=sys.executable, **more):
    """Start a head node in a Python, with more in its environment, and return where it is reached."""
    for attempt in range(TRIES):
        folder = tempfile.mkdtemp(prefix="bfc-", dir="/tmp")  # sockets in it have long names
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        process = _process(python, folder, ports, environment(**more))
        try:
            told = _told(process)
            if told is None:
                at = [f"127.0.0.1:{ports[name]}" for name in ("dashboard-port", "ray-client-server-port", "port")]
                yield Head(f"http://{at[0]}", f"ray://{at[1]}", at[2])
                return
        finally:
            _end(process, folder)
        if attempt + 1 == TRIES:
            pytest.fail(told)


def _process(python, folder, ports, variables):
    return subprocess.Popen(
        [
            python,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--head",
            "--block",
            "--num-cpus=2",
            "--include-dashboard=true",
            "--dashboard-host=127.0.0.1",
            f"--temp-dir={folder}",
            "--object-store-memory=200000000",
            "--disable-usage-stats",
            *(f"--{name}={port}" for name, port in ports.items()),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=variables,
        start_new_session=True,
    )


def _told(process):
    """Wait until Ray runs; return what it told if it does not."""
    told = []
    for line in process.stdout:
        told.append(line)
        if "Ray runtime started" in line:
            return None
    return "".join(told)


def _end(process, folder):
    """End a head node, and whatever it has started."""
    ours = set(of_session(folder))
    with suppress(psutil.NoSuchProcess):
        ours.update(psutil.Process(process.pid).children(recursive=True))
    process.terminate()
    _, alive = psutil.wait_procs(ours, timeout=20)
    for one in {*alive, *of_session(folder)}:
        one.kill()
    process.kill()
    process.communicate()
    psutil.wait_procs(ours, timeout=20)
    shutil.rmtree(folder, ignore_errors=True)


class Commands:
    """The command line of somebody whose job server is ours."""

    def __init__(self, folder, address):
        self.folder = folder
        self.address = address

    def start(self, *arguments, **more):
        return subprocess.Popen(
            [sys.executable, "-m", "batchflow.cli", *map(str, arguments)],
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            process_group=0,
            env=environment(RAY_API_SERVER_ADDRESS=self.address, PYTHONUNBUFFERED="1", **more),
        )

    def __call__(self, *arguments, status=0, **more):
        running = self.start(*arguments, **more)
        try:
            out, err = running.communicate(timeout=100)
        except subprocess.TimeoutExpired as late:
            os.killpg(running.pid, signal.SIGKILL)
            out, err = running.communicate()
            raise AssertionError(f"{arguments} did not end\n{out}{err}") from late
        assert running.returncode == status, out + err
        return out, err

    def jobs(self):
        out, _ = self("jobs", "--json")
        return [json.loads(line) for line in out.splitlines()]

    def about(self, folder):
        """Return the jobs that write into a folder of this test."""
        return [job for job in self.jobs() if job["into"] == str(folder)]
