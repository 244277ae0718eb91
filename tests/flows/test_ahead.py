"""Steps that are sent ahead of their turn, since they are short: what holds all the same."""

import os
import signal
import time
from contextlib import suppress
from itertools import pairwise

import psutil
import pytest
from aborted import aborted

import batchflow as bf
from batchflow import errors
from batchflow.executors import Processes
from batchflow.flows import calls as flow_calls
from batchflow.flows import calls as lines

ONE = bf.Resources(cpus=1)


class Notes:
    """Where steps write down that they began."""

    def __init__(self, folder):
        self.path = f"{folder}/notes"

    def __call__(self, what):
        with open(self.path, "a") as file:
            print(what, file=file)

    def read(self):
        with open(self.path) as file:
            return file.read().split()


@pytest.fixture
def notes(tmp_path):
    return Notes(tmp_path)


@pytest.fixture
def sent(monkeypatch):
    """The numbers of the steps that were sent ahead."""
    sent = []
    follow = Processes.follow

    def spy(self, job, calls, last):
        count = follow(self, job, calls, last)
        sent.extend(number for call in calls[:count] for number in call.key)
        return count

    monkeypatch.setattr(Processes, "follow", spy)
    return sent


@pytest.fixture
def patient(monkeypatch):
    """Whatever a step takes, it is short."""
    monkeypatch.setattr(lines, "STUCK_SECONDS", 60)
    monkeypatch.setattr(lines, "AHEAD_SECONDS", 60)


@pytest.fixture
def processes(warm):
    executor = warm("processes")
    bf.Flow().run(executor=executor)
    return executor


def note(notes, what, *_):
    notes(what)
    return what


def states(run):
    return [step.state for step in run.steps]


def wide(notes, count, **special):
    """Write steps that take nothing of each other."""
    flow = bf.Flow()
    for at in range(count):
        flow.step(special.get(f"at_{at}", note), notes, at, name=f"step {at}")
    return flow


def test_a_chain_goes_to_one_worker_ahead_and_each_step_is_told_of(processes, sent, notes, patient):
    flow = bf.Flow()
    last = flow.step(note, notes, 0)
    for at in range(1, 1 + Processes.ahead):  # more of them may find the worker done by then
        last = flow.step(note, notes, at, last)
    told = []
    run = flow.run(executor=processes, listeners=[told.append])
    assert sent == list(range(1, 1 + Processes.ahead))
    assert notes.read() == [str(at) for at in range(1 + Processes.ahead)]
    assert (run[last].value, set(states(run)), {step.attempts for step in run.steps}) == (16, {"succeeded"}, {1})
    assert [(type(event).__name__, event.step) for event in told] == [
        (kind, step.name) for step in run.steps for kind in ("StepStarted", "StepEnded")
    ]
    ends = [time for step in run.steps for time in (step.start, step.end)]
    assert all(one <= other + 1e-3 for one, other in pairwise(ends))  # two clocks


@pytest.mark.parametrize("never", [True, False])
def test_no_more_run_at_once_than_the_budget_has(processes, sent, tmp_path, notes, monkeypatch, never):
    """Also where they are taken back all the time."""
    monkeypatch.setattr(lines, "STUCK_SECONDS", 60 if never else 0)
    monkeypatch.setattr(lines, "AHEAD_SECONDS", 60)

    def alone(lock, *_):
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
        os.unlink(lock)

    flow = bf.Flow()
    for _ in range(100):
        first = flow.step(alone, f"{tmp_path}/lock")
        flow.step(alone, f"{tmp_path}/lock", [first, flow.step(alone, f"{tmp_path}/lock", first)])
    run = flow.run(executor=processes, limits=ONE)
    assert sent
    assert set(states(run)) == {"succeeded"}


def refuse(notes, what):
    notes(what)
    raise ValueError("no")


def test_a_large_one_among_short_ones_is_done_in_its_turn(processes, sent, notes, patient):
    flow = bf.Flow()
    steps = [flow.step(note, notes, "x" * 5000 if at == 3 else str(at), name=f"step {at}") for at in range(8)]
    run = flow.run(executor=processes, limits=ONE)
    assert sent[:2] == [1, 2]
    assert notes.read() == ["0", "1", "2", "x" * 5000, "4", "5", "6", "7"]
    assert [run[step].attempts for step in steps] == [1] * 8


def test_after_a_failure_nothing_begins(processes, sent, notes, patient):
    run = aborted(wide(notes, 30, at_3=refuse), executor=processes, limits=ONE)
    assert set(sent) >= {4, 5}
    assert notes.read() == ["0", "1", "2", "3"]
    assert states(run) == ["succeeded"] * 3 + ["failed"] + ["cancelled"] * 26
    assert [step.attempts for step in run.steps] == [1] * 4 + [0] * 26


def test_a_failure_costs_the_others_nothing_where_the_flow_goes_on(processes, sent, notes):
    run = wide(notes, 30, at_3=refuse, at_9=refuse).run(executor=processes, limits=ONE, on_error="continue")
    assert sorted(map(int, notes.read())) == list(range(30))
    assert [at for at, state in enumerate(states(run)) if state == "failed"] == [3, 9]
    assert {step.attempts for step in run.steps} == {1}


def test_a_worker_that_dies_costs_only_the_step_that_it_was_at(processes, sent, notes, patient):
    def die(notes, what):
        notes(what)
        os.kill(os.getpid(), signal.SIGKILL)

    run = wide(notes, 30, at_3=die).run(executor=processes, limits=ONE, on_error="continue")
    assert set(sent) >= {4, 5}
    assert sorted(map(int, notes.read())) == list(range(30))
    assert states(run) == ["succeeded"] * 3 + ["failed"] + ["succeeded"] * 26


def _wait_for(process, status):
    while psutil.Process(process).status() != status:
        pass


def test_a_line_that_no_worker_began_is_done_by_another(processes, sent, notes, patient, monkeypatch):
    """The only worker dies before it begins anything, and the driver learns of it after it has sent a line."""
    flow = bf.Flow()
    first = flow.step(os.getpid)
    worker = flow.run(executor=processes, limits=ONE)[first].value
    _wait_for(worker, psutil.STATUS_SLEEPING)  # it has unloaded the first flow, and is at no work
    os.kill(worker, signal.SIGSTOP)
    _wait_for(worker, psutil.STATUS_STOPPED)
    follow = Processes.follow

    def follow_and_kill(self, job, calls, last):
        count = follow(self, job, calls, last)
        if set(sent) >= {1, 2}:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        return count

    monkeypatch.setattr(Processes, "follow", follow_and_kill)
    run = wide(notes, 6).run(executor=processes, limits=ONE)
    assert set(sent) >= {1, 2}
    assert notes.read() == ["0", "1", "2", "3", "4", "5"]
    assert set(states(run)) == {"succeeded"}
    assert {step.attempts for step in run.steps} == {1}


def test_a_step_that_takes_long_holds_none_that_was_sent_behind_it(processes, sent, notes):
    """It waits for all the others, which take what it takes, so that they go to its worker."""

    def wait(notes, what, first):
        while len(notes.read()) < 6:
            os.sched_yield()
        return what

    flow = bf.Flow()
    first = flow.step(note, notes, 0)
    waits = flow.step(wait, notes, 1, first)
    for at in range(2, 7):
        flow.step(note, notes, at, first)
    run = flow.run(executor=processes, limits=bf.Resources(cpus=2))
    assert set(sent) >= {1, 2}
    assert run[waits].value == 1
    assert sorted(map(int, notes.read())) == [0, 2, 3, 4, 5, 6]


def test_a_step_is_told_to_have_begun_while_it_runs(processes, notes):
    """Also if it was sent ahead: whoever listens lets it go on."""

    def wait(notes, what, first):
        while "go" not in notes.read():
            os.sched_yield()

    def go(event):
        if type(event).__name__ == "StepStarted" and event.step == "wait":
            notes("go")

    flow = bf.Flow()
    flow.step(wait, notes, 1, flow.step(note, notes, 0))
    assert flow.run(executor=processes, listeners=[go]).ok


def test_ctrl_c_begins_nothing_more(processes, sent, notes, patient, monkeypatch):
    """The step that presses it goes on once the driver has heard, and those behind it were taken back by then."""
    recall = flow_calls.CallQueue.recall

    def heard(self):
        recall(self)
        notes("heard")

    driver = os.getpid()

    def press(notes, what):
        notes(what)
        os.kill(driver, signal.SIGINT)
        while "heard" not in notes.read():
            os.sched_yield()

    monkeypatch.setattr(flow_calls.CallQueue, "recall", heard)
    with pytest.raises(errors.InterruptedRun, match="interrupted after 4 of 30 steps") as caught:
        wide(notes, 30, at_3=press).run(executor=processes, limits=ONE)
    assert set(sent) >= {4, 5}
    assert [what for what in notes.read() if what != "heard"] == ["0", "1", "2", "3"]
    assert states(caught.value.run) == ["succeeded"] * 4 + ["cancelled"] * 26


def test_a_timeout_counts_from_when_a_step_begins(processes, sent, notes, patient):
    """Each takes most of its time, so that the last one began when the time of the first one was over."""

    def spend(notes, what):
        end = time.monotonic() + 0.6
        while time.monotonic() < end:
            os.sched_yield()

    flow = bf.Flow()
    for at in range(3):
        flow.step(spend, notes, at, timeout=1.5)
    run = flow.run(executor=processes, limits=ONE)
    assert set(sent) == {1, 2}
    assert set(states(run)) == {"succeeded"}


def test_what_takes_a_step_that_gave_nothing_is_as_ever(processes, sent, notes, patient, tmp_path):
    """One was not wanted, one returns more steps, one is tried again, one fails: all of it sent ahead."""
    (tmp_path / "tries").mkdir()
    tries = Notes(tmp_path / "tries")

    def grow(_):
        more = bf.Flow()
        return [more.step(pow, 2, at) for at in range(3)]

    def flaky(tries, *_):
        tries("try")
        if len(tries.read()) == 1:
            raise OSError("once")
        return "flaky"

    flow = bf.Flow()
    first = flow.step(note, notes, 0)
    unwanted = flow.step(note, notes, "never", first, when=first, default="default")
    behind = flow.step(note, notes, 1, unwanted)
    grown = flow.step(sum, flow.step(grow, behind))
    tried = flow.step(flaky, tries, grown, retry=bf.Retry(attempts=2, on=OSError, backoff=0.0))
    fails = flow.step(refuse, notes, tried)
    last = flow.step(note, notes, "last", fails)
    run = flow.run(executor=processes, on_error="continue", keep=True)
    assert (run[unwanted].value, run[behind].value, run[grown].value, run[tried].value) == (
        "default",
        1,
        7,
        "flaky",
    )
    assert [run[step].state for step in (unwanted, fails, last)] == ["skipped", "failed", "skipped"]
    assert [run[step].attempts for step in (first, behind, tried, fails, last)] == [1, 1, 2, 1, 0]
    assert notes.read() == ["0", "1", "flaky"]
    assert len(sent) >= 3


def test_values_that_are_large_go_through_the_driver(processes, notes):
    flow = bf.Flow()
    last = flow.step(lambda: "x" * 100_000)
    for _ in range(5):
        last = flow.step(lambda value: value + "y", last)
    assert flow.run(executor=processes)[last].value == "x" * 100_000 + "y" * 5
