"""Calls that are sent ahead to a worker: done in a line, taken back, given back where they did not begin."""

import os
import pickle
import signal
import socket
import threading

import numpy as np
import psutil
import pytest

from batchflow.core.chunks import Chunk, InputFile, Span
from batchflow.core.outcomes import Failed, Succeeded
from batchflow.core.resources import Resources
from batchflow.core.retry import NEVER
from batchflow.core.serialization import PickledFunction, pickle_value
from batchflow.core.work import ArgumentSlot, Call, NotStarted, StepValue, Task
from batchflow.executors import Processes
from batchflow.executors.processes import worker_handle as members
from batchflow.executors.processes.shared_state import StartTokens
from batchflow.io.sources.in_memory import RecordsSource
from batchflow.worker import CALLS, Program


def note(path, value, *_):
    """Write down that a call began; return what it got."""
    with open(path, "a") as file:
        print(value, file=file)
    return value


def call(number, fn, *args, earlier=None):
    """Return a call; with the value of an earlier one as its last argument if it takes one."""
    value = () if earlier is None else (StepValue(earlier=(earlier,)),)
    places = () if earlier is None else (ArgumentSlot((0,)),)
    handle = "place"
    arguments = pickle_value(
        ((*args, *([handle] if value else [])), {}), lambda one: 0 if value and one is handle else None
    )
    return Call((number,), PickledFunction(fn), arguments, value, places, retry=NEVER)


class Gate:
    """A call that waits to be let through."""

    def __init__(self, folder):
        self.came, self.go = f"{folder}/came", f"{folder}/go"
        os.mkfifo(self.came)
        os.mkfifo(self.go)

    def __call__(self, *_):
        with open(self.came, "w") as file:
            print(os.getpid(), file=file)
        with open(self.go) as file:
            return file.read()

    def reached(self):
        """Wait until a call is there; return its process."""
        with open(self.came) as file:
            return int(file.read())

    def open(self):
        with open(self.go, "w") as file:
            file.write("through")


@pytest.fixture
def gate(tmp_path):
    return Gate(tmp_path)


@pytest.fixture
def notes(tmp_path):
    """Where calls write down that they began."""
    path = tmp_path / "notes"
    path.touch()
    return path


@pytest.fixture
def one():
    """One worker."""
    with Processes(1) as executor:
        executor.start(1, Resources())
        yield executor


@pytest.fixture
def job(one):
    return one.load(CALLS)


def drained(executor, count):
    outcomes = []
    while len(outcomes) < count:
        outcomes += [outcome for _, outcome in executor.wait()]
    return {outcome.key[0]: outcome for outcome in outcomes}


def came(outcome):
    """Return the value of a call, or in a word what became of it."""
    if isinstance(outcome, Failed):
        return outcome.failure.error_type
    return "not begun" if isinstance(outcome.payload, NotStarted) else outcome.payload.open()


def line(executor, job, *calls):
    """Send the first call, and the others ahead."""
    executor.submit(job, calls[0])
    assert executor.follow(job, calls[1:], calls[0].key) == len(calls) - 1


def test_each_has_its_own_outcome_and_takes_what_those_before_it_gave(one, job):
    line(one, job, call(0, abs, -3), call(1, pow, 2, earlier=0), call(2, str, earlier=1), call(3, abs, -1))
    outcomes = drained(one, 4)
    assert list(outcomes) == [0, 1, 2, 3]
    assert [came(outcome) for outcome in outcomes.values()] == [3, 8, "8", 1]


def test_an_outcome_is_sent_before_the_next_call_ends(one, job, gate):
    line(one, job, call(0, abs, -3), call(1, gate))
    gate.reached()
    assert list(drained(one, 1)) == [0]
    gate.open()
    assert came(drained(one, 1)[1]) == "through"


def test_what_did_not_begin_is_taken_back_and_only_that(one, job, gate, notes):
    line(one, job, call(0, gate), *(call(at, note, notes, at) for at in (1, 2, 3)))
    gate.reached()
    assert one.recall(job, (0,)) == [(1,), (2,), (3,)]
    gate.open()
    assert came(drained(one, 1)[0]) == "through"
    assert one.wait() == []
    line(one, job, call(3, note, notes, "again"))
    assert came(drained(one, 1)[3]) == "again"
    assert notes.read_text() == "again\n"


def test_nothing_is_lost_or_done_twice_whenever_it_is_taken_back(one, job, notes):
    for round_ in range(200):
        calls = [call(at, note, notes, f"{round_}.{at}") for at in range(8)]
        line(one, job, *calls)
        done = {} if round_ % 2 else drained(one, 1 + round_ % 4)
        taken = one.recall(job, (7,)) if 7 not in done else []
        done |= drained(one, 8 - len(done) - len(taken))
        assert sorted([*done, *(number for (number,) in taken)]) == list(range(8))
        assert [key for (key,) in taken] == list(range(8 - len(taken), 8))
        assert notes.read_text().split() == [f"{round_}.{at}" for at in range(8 - len(taken))]
        notes.write_text("")


def test_what_was_not_sent_ahead_stays_where_it_is(one, job, gate):
    """Work of another job that was sent behind."""
    line(one, job, call(0, gate))
    gate.reached()
    other = one.load(Program(np.sum, RecordsSource(data=None), per="record"))
    one.submit(other, Task((0, 0), Chunk((Span(InputFile("records", 1), 0, 1),), 1), 1, [np.ones(100_000)]))
    assert one.follow(job, [call(1, abs, 1)], (0,)) == 0  # it does not stand last
    assert one.recall(job, (0,)) == []
    gate.open()
    outcomes = []
    while len(outcomes) < 2:
        outcomes += one.wait()
    assert [(owner, type(outcome)) for owner, outcome in outcomes] == [(job, Succeeded), (other, Succeeded)]
    one.unload(other)


def refuse(*_):
    raise ValueError("no")


def test_nothing_begins_behind_a_failure(one, job, notes):
    line(one, job, call(0, refuse), call(1, note, notes, 1), call(2, note, notes, 2))
    assert [came(outcome) for outcome in drained(one, 3).values()] == ["ValueError", "not begun", "not begun"]
    line(one, job, call(1, note, notes, 1), call(2, note, notes, 2))
    assert [came(outcome) for outcome in drained(one, 2).values()] == [1, 2]
    assert notes.read_text() == "1\n2\n"


@pytest.mark.parametrize("give", [b"x" * 5000, np.zeros(2000)], ids=["large", "buffers"])
def test_what_takes_a_value_that_was_not_kept_does_not_begin(one, job, notes, give):
    same = call(0, abs, -1)._replace(
        fn=PickledFunction(lambda value: value), arguments=pickle_value(((give,), {}))
    )
    line(one, job, same, call(1, note, notes, 1, earlier=0), call(2, note, notes, 2))
    outcomes = drained(one, 3)
    assert [came(outcomes[at]) for at in (1, 2)] == ["not begun", "not begun"]
    assert notes.read_text() == ""


def test_a_value_of_another_flow_is_not_taken_for_that_of_this_one(one, job):
    line(one, job, call(0, abs, -1), call(1, abs, -2))
    drained(one, 2)
    other = one.load(CALLS)
    line(one, other, call(5, abs, -1), call(1, str, earlier=0))
    assert came(drained(one, 2)[1]) == "not begun"


def test_what_is_large_is_not_sent_ahead(one, job, gate):
    line(one, job, call(0, gate))
    assert one.follow(job, [call(1, len, "x" * 5000), call(2, abs, 1)], (0,)) == 0
    assert one.follow(job, [call(1, len, "x")], (7,)) == 0
    gate.reached()
    gate.open()
    assert list(drained(one, 1)) == [0]


def test_of_those_that_are_large_only_the_first_is_pickled(one, job, gate, monkeypatch):
    """Each may hold all that the worker's memory holds."""
    pickled = []
    monkeypatch.setattr(members, "dumps", lambda value, **how: pickled.append(value) or pickle.dumps(value, **how))
    line(one, job, call(0, gate))
    assert one.follow(job, [call(at, len, "x" * 5000) for at in (1, 2, 3)], (0,)) == 0
    assert len(pickled) == 1
    gate.reached()
    gate.open()
    drained(one, 1)


def test_what_stands_behind_a_large_one_is_not_sent_ahead_either(one, job, gate, notes):
    line(one, job, call(0, gate))
    large = call(2, len, "x" * 5000)
    assert one.follow(job, [call(1, note, notes, 1), large, call(3, note, notes, 3)], (0,)) == 1
    gate.reached()
    gate.open()
    assert {at: came(outcome) for at, outcome in drained(one, 2).items()} == {0: "through", 1: 1}
    line(one, job, large, call(3, note, notes, 3))
    assert {at: came(outcome) for at, outcome in drained(one, 2).items()} == {2: 5000, 3: 3}
    assert notes.read_text() == "1\n3\n"


def test_driver_and_worker_do_not_wait_for_each_other_where_sockets_are_small(monkeypatch):
    """As on some systems: one cannot send its calls, as the other cannot send what it answers."""
    make = socket.socketpair

    def small():
        ends = make()
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return ends

    monkeypatch.setattr(socket, "socketpair", small)
    with Processes(1) as executor:
        executor.start(1, Resources())
        job = executor.load(CALLS)
        calls = [call(at, bytes.ljust, b"x" * 1500, 30_000) for at in range(17)]
        for _ in range(3):
            line(executor, job, *calls)
            assert [came(outcome) for outcome in drained(executor, 17).values()] == [
                b"x" * 1500 + b" " * 28_500
            ] * 17


def test_a_worker_that_is_killed_takes_only_the_call_that_it_was_at(one, job, gate, notes):
    """What it did before is told, though it has ended with work unread before anybody listens."""
    line(one, job, call(0, note, notes, 0), call(1, gate), *(call(at, note, notes, at) for at in (2, 3)))
    worker = gate.reached()
    os.kill(worker, signal.SIGKILL)
    while psutil.pid_exists(worker):
        os.sched_yield()
    assert {at: came(outcome) for at, outcome in drained(one, 4).items()} == {
        0: 0,
        1: "WorkerDied",
        2: "not begun",
        3: "not begun",
    }
    line(one, job, call(2, note, notes, 2))
    assert came(drained(one, 1)[2]) == 2
    assert notes.read_text() == "0\n2\n"


def test_what_waited_behind_a_program_that_is_unloaded_is_gone(one, job, gate, notes):
    line(one, job, call(0, gate), call(1, note, notes, 1))
    gate.reached()
    one.unload(job)
    other = one.load(CALLS)
    line(one, other, call(0, note, notes, "other"))
    assert came(drained(one, 1)[0]) == "other"
    assert notes.read_text() == "other\n"


def test_each_permit_is_had_by_one_only():
    """Two readers of one pipe: whatever the one has, the other has not."""
    ours = StartTokens.make()
    worker, had, taken = StartTokens(ours.outlet), [], []
    given = threading.Semaphore(0)

    def work():
        for number in range(1, 1001):
            given.acquire()
            if worker.take(number):
                had.append(number)

    thread = threading.Thread(target=work)
    thread.start()
    for number in range(1, 1001):
        assert ours.give(1) == range(number, number + 1)
        given.release()
        taken += ours.take_back() if number % 7 == 0 else []
    thread.join()
    assert sorted(had + taken) == list(range(1, 1001))
    assert had
    ours.close()


def test_a_permit_that_was_taken_back_does_not_stand_in_for_a_later_one():
    ours = StartTokens.make()
    worker = StartTokens(ours.outlet)
    one, two = ours.give(2)
    assert (worker.take(one), ours.take_back()) == (True, [two])
    three, four = ours.give(2)
    assert [worker.take(number) for number in (two, three, four)] == [False, True, True]
    assert not worker.take(5)
    ours.close()
