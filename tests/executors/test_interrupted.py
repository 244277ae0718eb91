"""Drivers that are killed or interrupted, for real: workers end, and the same command goes on."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
from crash import proved

import batchflow as bf
from batchflow import errors
from batchflow.core.interrupts import DRAIN_SECONDS, exit_as_interrupted

DRIVER = """
    import os, sys, threading
    import batchflow as bf

    def fn(n):
        if n < 6:
            return n
        if n == 6:
            with open("begun", "w") as file:  # a pipe: the test waits at its other end
                print(os.getpid(), file=file)
            with open("go") as file:
                file.read()
        if n == 7:
            threading.Event().wait({hang})
        return n

    if __name__ == "__main__":
        bf.map_records(
            fn, bf.records(list(range(40))), into="out/", chunk=2, executor={executor!r},
            limits=bf.Resources(cpus=1), progress=False,
        )
"""


def is_alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(pids, seconds):
    """Wait for the end of processes that are not our children; whether all ended in time."""
    end = time.monotonic() + seconds
    while (alive := any(map(is_alive, pids))) and time.monotonic() < end:
        os.sched_yield()
    return not alive


class Driver:
    """A script whose function waits at its seventh record until it is told to go on."""

    def __init__(self, folder, executor, hang="0"):
        self.folder = folder
        for pipe in ("begun", "go"):
            (folder / pipe).unlink(missing_ok=True)
            os.mkfifo(folder / pipe)
        self.path = folder / "driver.py"
        self.path.write_text(textwrap.dedent(DRIVER).format(executor=executor, hang=hang))
        self.process = subprocess.Popen(
            [sys.executable, self.path], cwd=folder, stderr=subprocess.PIPE, text=True, env=os.environ
        )
        with open(folder / "begun") as file:
            self.worker = int(file.read())
        self.offspring = [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]
        assert executor == "serial" or self.worker in self.offspring
        self._wait_for(3)

    def _wait_for(self, chunks):
        """Return when so many chunks are written down: the worker may be ahead of the driver by one."""
        ledger = self.folder / ".out_batchflow" / "ledger.log"
        end = time.monotonic() + 30
        while ledger.read_text().count('{"chunk":') < chunks:
            assert time.monotonic() < end
            os.sched_yield()

    def go(self):
        with open(self.folder / "go", "w"):
            pass

    def again(self):
        """Run the same job in this process, with nothing to wait for."""
        names = {"__name__": "driver"}
        code = self.path.read_text().replace("n == 6", "n == -6").replace("n == 7", "n == -7")
        exec(compile(code, str(self.path), "exec"), names)
        return bf.map_records(
            names["fn"],
            bf.records(list(range(40))),
            into=f"{self.folder}/out/",
            chunk=3,
            executor="serial",
            version="without waiting",
        )


def check_resumed(driver, at_least):
    result = driver.again()
    assert pq.read_table(driver.folder / "out")["value"].to_pylist() == list(range(40))
    assert result.report.before >= at_least
    assert proved(driver.folder / "out") == []
    assert [path.name for path in (driver.folder / "out").rglob("*")] == ["part-00000.parquet"]
    assert sorted(path.name for path in (driver.folder / ".out_batchflow").rglob("*")) == [
        "errors.pq",
        "ledger.log",
        "plan.json",
        "report.html",
        "report.json",
        "trace.json",
    ]


@pytest.mark.parametrize("executor", ["processes", pytest.param("ray", marks=pytest.mark.cluster)])
def test_workers_end_with_a_driver_that_was_killed_and_the_same_command_goes_on(tmp_path, executor):
    before = {path for path in os.listdir(tempfile.gettempdir()) if path.startswith("bf-ray-")}
    driver = Driver(tmp_path, executor)
    driver.process.kill()
    driver.process.communicate()
    assert gone([driver.worker], 2)
    assert executor == "ray" or gone(driver.offspring, 2)  # servers of Ray's own may take a minute
    check_resumed(driver, 6)
    for left in {path for path in os.listdir(tempfile.gettempdir()) if path.startswith("bf-ray-")} - before:
        shutil.rmtree(Path(tempfile.gettempdir(), left))  # nobody was left to remove it


@pytest.mark.parametrize("executor", ["processes", "serial", pytest.param("ray", marks=pytest.mark.cluster)])
def test_the_first_interrupt_lets_running_tasks_finish(tmp_path, executor):
    driver = Driver(tmp_path, executor)
    driver.process.send_signal(signal.SIGINT)
    assert driver.process.stderr.readline() == "\n"
    assert driver.process.stderr.readline() == (
        "batchflow: finishing what is running, 10 s at most (Ctrl-C again stops at once)\n"
    )
    driver.go()
    _, told = driver.process.communicate(timeout=60)
    assert driver.process.returncode == 130
    assert told.count("Traceback") == 1
    assert told.splitlines()[-1] == (
        f"batchflow.errors.InterruptedRun: interrupted: what is done is kept in {tmp_path}/out; "
        "run the same again to go on"
    )
    assert gone(driver.offspring, 20)
    check_resumed(driver, 8)  # the chunk of the record that waited is done, too


@pytest.mark.parametrize("executor", ["processes", pytest.param("ray", marks=pytest.mark.cluster)])
def test_the_second_interrupt_stops_at_once(tmp_path, executor):
    driver = Driver(tmp_path, executor)
    driver.process.send_signal(signal.SIGINT)
    assert driver.process.stderr.readline() == "\n"
    driver.process.stderr.readline()
    began = time.monotonic()
    driver.process.send_signal(signal.SIGINT)
    _, told = driver.process.communicate(timeout=60)
    assert time.monotonic() - began < DRAIN_SECONDS
    assert driver.process.returncode == 130
    assert "run the same again to go on" in told.splitlines()[-1]
    assert gone(driver.offspring, 20)
    check_resumed(driver, 6)


def test_a_script_ends_with_130_and_a_prompt_stays(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: told.append(error[0]))
    exit_as_interrupted()
    hook = sys.excepthook
    exit_as_interrupted()
    assert sys.excepthook is hook
    with pytest.raises(SystemExit, match="130"):
        hook(errors.InterruptedRun, errors.InterruptedRun(), None)
    hook(ValueError, ValueError(), None)
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    hook(errors.InterruptedRun, errors.InterruptedRun(), None)
    assert told == [errors.InterruptedRun, ValueError, errors.InterruptedRun]


def test_what_does_not_finish_in_its_grace_is_given_up(tmp_path, monkeypatch):
    """In this process, so that the grace can be short."""
    monkeypatch.setattr("batchflow.core.interrupts.DRAIN_SECONDS", 0.2)

    def fn(n):
        if n == 3:
            (tmp_path / "begun").touch()
            signal.pause()
        return n

    def interrupt(event):
        del event
        if (tmp_path / "begun").exists() and not (tmp_path / "sent").exists():
            (tmp_path / "sent").touch()
            os.kill(os.getpid(), signal.SIGINT)

    job = bf.Job(
        fn,
        bf.records(list(range(4000))),
        into=f"{tmp_path}/out/",
        chunk=1,
        executor="processes",
        limits=bf.Resources(cpus=2),
        listeners=[interrupt],
    )
    with pytest.raises(errors.InterruptedRun, match="run the same again to go on"):
        job.run()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_job_in_memory_stops_at_once():
    """There is nothing that could be kept."""

    def fn(n):
        if n == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return n

    with pytest.raises(KeyboardInterrupt):
        bf.map_records(fn, bf.records(range(10)), executor="serial", chunk=1)
