"""How flows end before their time, and what they hold meanwhile."""

import os
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest
from aborted import aborted

import batchflow as bf
from batchflow import errors
from batchflow.executors.ray import Ray
from batchflow.flows import scheduler as conducting

WAITS = bf.Resources(cpus=0)


def give(value, *_):
    return value


def refuse(*_):
    raise ValueError("no")


class Gate:
    """Waits, in whatever process, until a file is there; tells by another one that it does."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __call__(self, *_):
        with open(f"{self.folder}/{os.getpid()}.waits", "w"):
            pass
        end = time.monotonic() + 60
        while not os.path.exists(f"{self.folder}/open") and time.monotonic() < end:
            time.sleep(0.005)
        return "through"

    def waiting(self):
        return [name for name in os.listdir(self.folder) if name.endswith(".waits")]

    def open(self):
        with open(f"{self.folder}/open", "w"):
            pass


class FailsBehind:
    """Fails once somebody waits at a gate."""

    def __init__(self, gate, count=1):
        self.gate, self.count = gate, count

    def __call__(self):
        while len(self.gate.waiting()) < self.count:
            time.sleep(0.005)
        raise ValueError("no")


class TestAbort:
    def test_what_runs_may_finish(self, remote, tmp_path):
        gate = Gate(tmp_path)
        flow = bf.Flow()
        waits = flow.step(gate, per_task=WAITS, name="waits")
        flow.step(FailsBehind(gate), per_task=WAITS, name="fails")
        late = flow.step(give, waits, name="late")

        def let_through(event):
            if getattr(event, "state", "") == "failed":
                gate.open()

        run = aborted(flow, executor=remote, listeners=[let_through], keep=True)
        assert (run[waits].value, run[late].state, run["fails"].state) == ("through", "cancelled", "failed")

    def test_what_does_not_finish_in_time_is_cancelled(self, remote, tmp_path, monkeypatch):
        """Steps, and jobs in memory and on disk; what the latter did is kept."""
        monkeypatch.setattr(conducting, "ABORT_SECONDS", 0.3)
        gate = Gate(tmp_path)
        flow = bf.Flow()
        flow.step(gate, per_task=WAITS, name="step")
        flow.map_records(gate, [1], per_task=WAITS, name="job")
        flow.map_records(
            lambda x: gate() if x == 5 else x, range(6), chunk=1, into=tmp_path / "out/", name="written"
        )
        flow.step(FailsBehind(gate, 3), per_task=WAITS, name="fails")
        run = aborted(flow, executor=remote, limits=bf.Resources(cpus=1))  # one chunk of it after the other
        assert {step.name: step.state for step in run.steps} == {
            "step": "cancelled",
            "job": "cancelled",
            "written": "cancelled",
            "fails": "failed",
        }
        assert all(step.why == "the flow was stopped" for step in run.steps if step.state == "cancelled")
        assert nobody_works(remote)
        gate.open()
        again = bf.Flow()
        rows = again.map_records(
            lambda x: gate() if x == 5 else x,
            range(6),
            chunk=1,
            into=tmp_path / "out/",
            name="written",
            version="2",
        )
        done = again.run(executor=remote)
        assert (done[rows].report.rows_in, done[rows].report.before) == (6, 5)

    def test_a_job_that_is_stopped_begins_no_more_chunks(self, executor, tmp_path):
        seen = []
        flow = bf.Flow()
        flow.map_records(lambda x: 1 // x, [1, 0], max_errors=0, name="fails")
        flow.map_records(give, range(100_000), chunk=10, name="long")
        run = aborted(flow, executor=executor, limits=bf.Resources(cpus=1), listeners=[seen.append])
        assert run["fails"].state == "failed"
        assert run["long"].state == "cancelled"
        assert len(seen) < 20_000


def nobody_works(executor):
    """Whether nothing that was cancelled still runs; who was killed may take a moment to end."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if executor.name == "ray":
            if not any(
                title_of(child).startswith("ray::_") for child in psutil.Process().children(recursive=True)
            ):
                return True
        elif all(not worker.queue for worker in executor._workers.values()):
            return True
        time.sleep(0.01)
    return False


def title_of(process):
    try:
        return process.name()
    except psutil.Error:  # it has ended meanwhile
        return ""


class TestInterrupt:
    def test_the_first_lets_what_runs_finish(self, remote, tmp_path):
        gate = Gate(tmp_path)
        flow = bf.Flow()
        flow.step(gate, per_task=WAITS, name="waits")
        flow.map_records(gate, [1], per_task=WAITS, name="job")
        flow.step(give, 1, after=flow["waits"], name="late")
        over = threading.Event()

        def press():
            while len(gate.waiting()) < 2 and not over.wait(0.01):
                pass
            os.kill(os.getpid(), signal.SIGINT)
            over.wait(0.3)
            gate.open()

        user = threading.Thread(target=press)
        user.start()
        try:
            with pytest.raises(
                errors.InterruptedRun, match=r"^interrupted after [12] of 3 steps: run the same again"
            ):
                flow.run(executor=remote)
        finally:
            over.set()
            user.join()
        assert nobody_works(remote)

    def test_the_second_stops_at_once(self, remote, tmp_path):
        gate = Gate(tmp_path)
        flow = bf.Flow(folder=tmp_path / "cache")
        flow.step(gate, per_task=WAITS, cache=True)
        over = threading.Event()

        def press():
            while not gate.waiting() and not over.wait(0.01):
                pass
            while not over.wait(0.2):
                os.kill(os.getpid(), signal.SIGINT)

        user = threading.Thread(target=press)
        user.start()
        try:
            with pytest.raises(errors.InterruptedRun, match="what they keep on disk is not done again"):
                flow.run(executor=remote)
        finally:
            over.set()
            user.join()
        assert nobody_works(remote)

    def test_an_interrupt_inside_a_step_of_this_process(self):
        flow = bf.Flow()
        flow.step(os.kill, os.getpid(), signal.SIGINT)
        flow.step(give, 1, after=flow["kill"], name="late")
        with pytest.raises(errors.InterruptedRun, match="interrupted after 1 of 2 steps"):
            flow.run(executor="serial")


def test_a_zygote_that_is_gone_ends_the_flow_and_a_new_one_runs():
    with bf.Processes() as executor:
        assert bf.Flow().run(executor=executor).ok
        flow = bf.Flow()
        first = flow.step(give, 1)

        def kill(event):
            if type(event).__name__ == "StepEnded" and executor._zygote is not None:
                executor._zygote.process.kill()
                executor._zygote.process.wait()

        for _ in range(5):
            first = flow.step(give, first)
        with pytest.raises(
            errors.ExecutorError, match="the process that workers are forked from was killed by SIGKILL"
        ):
            flow.run(executor=executor, listeners=[kill])
        again = bf.Flow()
        step = again.step(give, 1)
        assert again.run(executor=executor)[step].value == 1


def test_values_go_when_nobody_is_left_to_take_them(script):
    """A gigabyte goes through, and neither the driver nor what it holds grows with it."""
    done = script(
        """
        import numpy as np
        import batchflow as bf

        def make(at):
            return np.full(10_000_000, at, dtype="u1")

        def more(array):
            return array + 1

        flow = bf.Flow()
        for at in range(4):
            step = flow.step(make, at)
            for _ in range(24):
                step = flow.step(more, step)
            flow.step(len, step)
        run = flow.run(executor="processes")
        assert run.ok
        with open("/proc/self/status") as status:  # `getrusage` counts what the process that started it had
            print(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
        """
    )
    assert int(done.stdout) < 400_000


def test_on_ray_values_stay_in_the_object_store(warm, monkeypatch):
    """What goes from step to step, and what a job gives, never comes to the driver; only what is asked for."""
    fetched = []
    fetch = Ray.fetch

    def spy(self, payload):
        fetched.append(payload)
        return fetch(self, payload)

    monkeypatch.setattr(Ray, "fetch", spy)
    flow = bf.Flow()
    made = flow.step(lambda: list(range(1000)))
    rows = flow.map_records(lambda x: {"x": x}, range(100), chunk=10)
    both = flow.step(lambda made, rows: (len(made), rows.num_rows), flow.step(give, made), rows)
    run = flow.run(executor=warm("ray"))
    assert fetched == []
    assert (run[both].value, len(fetched)) == ((1000, 100), 1)
    over = bf.Flow()
    listed = over.step(lambda: [1, 2])
    total = over.map_records(lambda x: x, listed)  # its input is cut here, so it has to come
    assert over.run(executor=warm("ray"))[total].value["value"].to_pylist() == [1, 2]


@pytest.mark.cluster
def test_an_own_ray_is_asked_for_what_is_kept_before_it_ends(script):
    done = script(
        """
        import batchflow as bf

        flow = bf.Flow()
        one = flow.step(lambda: 1)
        rows = flow.map_records(lambda x: {"x": x}, range(3))
        two = flow.step(lambda one, rows: one + rows.num_rows, one, rows)
        run = flow.run(executor="ray", keep=[rows])
        print(run[two].value, run[rows].value.to_pydict(), run[one].opened)
        """
    )
    assert done.stdout == "4 {'x': [0, 1, 2]} None\n"


def test_driver_that_is_killed_leaves_no_process(tmp_path):
    code = f"""
import sys
sys.path[:0] = [{os.path.dirname(__file__)!r}, {os.path.dirname(os.path.dirname(__file__))!r}]
import batchflow as bf
from test_endings import Gate, WAITS
flow = bf.Flow()
for _ in range(3):
    flow.step(Gate({str(tmp_path)!r}), per_task=WAITS)
flow.run(executor="processes")
"""
    driver = subprocess.Popen([sys.executable, "-c", code])
    gate = Gate(tmp_path)
    end = time.monotonic() + 60
    while len(gate.waiting()) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    workers = [psutil.Process(int(name.partition(".")[0])) for name in gate.waiting()]
    driver.kill()
    driver.wait()
    assert len(workers) == 3
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert alive == []
