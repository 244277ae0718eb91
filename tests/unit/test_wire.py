"""Objects between processes: in line or in shared memory, whole or not at all."""

import copy
import importlib
import os
import pickle
import selectors
import socket
import subprocess
import sys
import threading

import cloudpickle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchflow as bf
from batchflow.core.chunks import Chunk, InputFile, Piece, Slice, Span
from batchflow.core.outcomes import Failed, Failure, Failures, SpanCount, Stats, Succeeded
from batchflow.core.serialization import dumps_out_of_band
from batchflow.core.work import Task
from batchflow.executors.processes import wire
from batchflow.executors.program_loading import pickled
from batchflow.worker import Program


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def send(to, value):
    parcel = wire.pack(value)
    try:
        parcel.send(to)
    finally:
        parcel.close()


def receive(source):
    """Wait for an object as a worker does."""
    return wire.MessageReader(source, shares=True).receive()


def receive_ahead(source):
    """Wait for an object as the driver does."""
    return wire.MessageReader(source).receive()


@pytest.mark.parametrize("size", [40, 41, wire.INLINE_BYTES])
def test_bytes_that_are_no_frame_are_refused(pair, size):
    pair[0].sendall(b"j" * size)
    with pytest.raises(wire.GarbledError):
        receive_ahead(pair[1])


def test_header_of_shared_memory_that_did_not_come_is_refused(pair):
    parcel = wire.pack(bytes(2 * wire.INLINE_BYTES))
    pair[0].sendall(parcel.message)
    parcel.close()
    with pytest.raises(wire.GarbledError):
        receive_ahead(pair[1])


BOTH = pytest.mark.parametrize("receive", [receive, receive_ahead])


def files():
    return len(os.listdir("/proc/self/fd"))


@BOTH
@pytest.mark.parametrize("size", [0, 1, 1000, wire.INLINE_BYTES - 200, wire.INLINE_BYTES, 10_000_000])
def test_bytes_of_every_size(pair, size, receive):
    value = {"data": os.urandom(size), "n": [1, None]}
    send(pair[0], value)
    assert receive(pair[1]) == value


@given(
    st.lists(st.integers(0, 60_000), max_size=5),
    st.integers(0, 40_000),
    st.sampled_from([receive, receive_ahead]),
)
def test_buffers_of_every_size(sizes, text, receive):
    arrays = [np.arange(size, dtype=np.uint8) for size in sizes]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(ours, ("x" * text, arrays))
        got_text, got = receive(theirs)
    assert got_text == "x" * text
    assert [array.tobytes() for array in got] == [array.tobytes() for array in arrays]


@pytest.mark.parametrize("shares", [True, False])
def test_several_objects_one_after_the_other(pair, shares):
    values = [1, "x" * 50_000, None, b"y" * 100, "z" * 200_000]
    for value in values:
        send(pair[0], value)
    inbox = wire.MessageReader(pair[1], shares=shares)
    assert [inbox.receive() for _ in values] == values


def test_small_objects_that_are_sent_together(pair):
    values = [1, "x" * 2000, None]
    wire.send_together(pair[0], map(wire.pack, values))
    inbox = wire.MessageReader(pair[1])
    got = [inbox.receive()]
    while inbox.has_whole:
        got.append(inbox.receive())
    assert got == values


@given(st.lists(st.sampled_from([0, 10, 3_000, 30_000, 50_000]), max_size=8), st.data())
def test_objects_that_arrive_together_or_in_pieces(sizes, data):
    """Each is read once and whole, however the bytes come, and what has arrived can be told."""
    values = [os.urandom(size) for size in sizes]
    before = files()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inbox = wire.MessageReader(theirs)
        got = []
        for value in values:
            send(ours, value)
            if data.draw(st.booleans()):
                got.append(inbox.receive())
                while inbox.has_whole:
                    got.append(inbox.receive())
        while len(got) < len(values):
            got.append(inbox.receive())
        assert not inbox.has_whole
    assert got == values
    assert files() == before


def test_what_was_read_and_not_asked_for_is_given_back(pair):
    before = files()
    for value in (1, b"x" * 100_000):
        send(pair[0], value)
    inbox = wire.MessageReader(pair[1])
    assert inbox.receive() == 1
    inbox.close()
    assert files() <= before


@pytest.fixture
def yields(monkeypatch):
    """Times that this process gave its core away."""
    yields = []
    monkeypatch.setattr(os, "sched_yield", lambda: yields.append(None))
    return yields


def waits_at(source):
    selector = wire.SpinningSelector()
    selector.register(source, selectors.EVENT_READ, "data")
    return selector


def often(selector, source):
    """Wait many times for what is there, and take it."""
    for _ in range(20):
        assert [key.data for key, _ in selector.select()] == ["data"]
    wire.MessageReader(source).receive()


def test_who_was_answered_soon_of_late_is_awake(pair, yields, monkeypatch):
    monkeypatch.setattr(wire, "AWAKE_SECONDS", 60)  # whatever the machine does meanwhile
    selector = waits_at(pair[1])
    assert (selector.select(0), selector.select(0.01), yields) == ([], [], [])
    send(pair[0], 1)
    often(selector, pair[1])
    assert yields == []
    assert selector.select(0.01) == []
    assert yields
    del yields[:]
    assert selector.select(0.01) == []  # nothing came
    assert yields == []


def test_who_is_awake_sleeps_after_a_moment(pair, yields, monkeypatch):
    monkeypatch.setattr(wire, "AWAKE_SECONDS", 60)
    selector = waits_at(pair[1])
    send(pair[0], 1)
    often(selector, pair[1])
    monkeypatch.setattr(wire, "AWAKE_SECONDS", 0.001)
    sender = threading.Timer(0.1, send, [pair[0], 1])
    sender.start()
    assert [key.data for key, _ in selector.select()] == ["data"]
    sender.join()
    assert yields
    wire.MessageReader(pair[1]).receive()
    del yields[:]
    assert selector.select(0.01) == []  # that came late
    assert yields == []


def test_descriptors_that_were_read_ahead_do_not_go_to_children(pair):
    def child():
        return subprocess.run(["ls", "/proc/self/fd"], close_fds=False, capture_output=True, check=True).stdout

    before = child()
    inbox = wire.MessageReader(pair[1])
    for value in (1, b"x" * 100_000):
        send(pair[0], value)
    assert inbox.receive() == 1
    assert inbox.has_whole
    assert child() == before
    assert inbox.receive() == b"x" * 100_000


def test_a_great_many_buffers_do_not_fill_the_socket(pair):
    """As many as would block the sender for ever, since nobody reads."""
    arrays = [np.full(600, n) for n in range(40_000)]
    pair[0].settimeout(10)
    send(pair[0], arrays)
    assert all(np.array_equal(one, other) for one, other in zip(receive(pair[1]), arrays, strict=True))


def test_one_parcel_for_many_receivers_shares_their_memory(pair):
    array = np.zeros(1_000_000)
    before = files()
    parcel = wire.pack(array)
    for _ in range(2):
        parcel.send(pair[0])
    parcel.close()
    parcel.close()
    one, other = (receive(pair[1]) for _ in range(2))
    one[0] = 7  # its own from now on
    assert (one[0], other[0]) == (7, 0)
    del one, other
    assert files() == before


def test_what_is_received_by_copy_holds_no_file_open(pair):
    before = files()
    kept = []
    for _ in range(20):
        send(pair[0], np.zeros(100_000))
        kept.append(receive_ahead(pair[1]))
    assert files() == before
    kept[0][0] = 1  # and may be written to


@BOTH
@pytest.mark.parametrize("size", [700, 200_000])
def test_buffers_stand_where_arrow_computes_with_them(pair, size, receive):
    arrays = [np.arange(size + more, dtype=np.int64) for more in range(3)]
    send(pair[0], ("x" * 13, arrays))
    for sent, came in zip(arrays, receive(pair[1])[1], strict=True):
        assert (came.ctypes.data % 16, came.tolist()) == (0, sent.tolist())


@BOTH
def test_the_other_side_is_gone(pair, receive):
    pair[0].close()
    with pytest.raises(EOFError):
        receive(pair[1])


@BOTH
@pytest.mark.parametrize("cut", [1, 39, 40, 48])
def test_the_other_side_is_gone_in_the_middle_of_an_object(pair, cut, receive):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(ours, "x" * 100)
        message = theirs.recv(1000)
    pair[0].sendall(message[:cut])
    pair[0].close()
    with pytest.raises(EOFError):
        receive(pair[1])


def test_sending_to_nobody_is_an_os_error(pair):
    pair[1].close()
    before = files()
    for value in (1, "x" * 100_000):
        with pytest.raises(OSError, match="Broken pipe"):
            send(pair[0], value)
    assert files() == before


class Bomb:
    def __reduce__(self):
        return _explode, ()


def _explode():
    raise OSError("bomb")


def test_an_object_that_cannot_be_made_again_leaves_the_next_one_whole(pair):
    inbox = wire.MessageReader(pair[1])
    send(pair[0], Bomb())
    send(pair[0], 1)
    with pytest.raises(pickle.UnpicklingError, match="OSError: bomb") as caught:
        inbox.receive()
    assert isinstance(caught.value.__cause__, OSError)
    assert inbox.receive() == 1


def test_lambdas_and_local_classes_travel():
    class Local:
        x = 5

    value, buffers = dumps_out_of_band((Local, lambda n: n + 1))
    assert buffers == []
    local, fn = pickle.loads(value)
    assert (local.x, fn(1)) == (5, 2)


def test_what_main_defines_travels_by_value(tmp_path):
    code = """
import sys
import batchflow as bf
from batchflow.executors.processes import wire
from batchflow.executors.program_loading import pickled
from batchflow.core.chunks import Chunk, InputFile as Input, Piece, Slice, Span; from batchflow.core.outcomes import Failed, Failure, SpanCount, Stats, Succeeded; from batchflow.core.work import Task
from batchflow.core.serialization import dumps_out_of_band as dumps
from batchflow.worker import Program

class Point:
    def __init__(self, x):
        self.x = x

data, buffers = dumps([Point(3)])
sys.stdout.buffer.write(data)
"""
    (tmp_path / "script.py").write_text(code)
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, check=True)
    [point] = pickle.loads(done.stdout)
    assert point.x == 3


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_values_of_the_model_come_back_as_what_they_are(protocol):
    chunk = Chunk((Span(InputFile("a.csv", 9, "v", "gz"), 1, 5, ["head"]), Span(InputFile("b.csv"))), 7, 1, 2, 3)
    task = Task((0, 1), chunk, 2, [1], None, alone=True)
    failure = Failure("a.csv", 1, 5, 2, "x", "call", "ValueError", "bad")
    stats = Stats("here:1", 1.5, spans=(SpanCount("a.csv", 2, 2, 1, 1),))
    for value in (
        task,
        Succeeded((0, 1), stats, (failure,)),
        Failures.of((failure,)),
        Failed((0, 1), failure),
        Piece("p", 1, 2, None),
        Slice("p", 1),
    ):
        again = pickle.loads(pickle.dumps(value, protocol))
        assert again == value
        assert repr(again) == repr(value)  # down to the last one it is of the same class
        assert copy.deepcopy(value) == value


def test_a_function_that_can_be_imported_goes_by_name_and_loads_no_cloudpickle(tmp_path):
    (tmp_path / "steps.py").write_text("def double(n):\n    return 2 * n\n")
    (tmp_path / "script.py").write_text(
        "import sys, batchflow as bf, steps\n"
        "print(bf.map_records(steps.double, bf.records([1, 2]), executor='processes', progress=False).values)\n"
        "print('cloudpickle' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[2, 4]\nFalse\n"


def test_a_module_that_is_to_go_by_value_does(tmp_path, monkeypatch):
    """So do those of the command line: a worker on another machine has no such file."""
    (tmp_path / "unseen.py").write_text("def double(n):\n    return 2 * n\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("unseen")
    program = Program(module.double, bf.records([1]))
    assert b"unseen" in pickled(program)[0]
    cloudpickle.register_pickle_by_value(module)
    try:
        data, buffers = pickled(program)
    finally:
        cloudpickle.unregister_pickle_by_value(module)
        del sys.modules["unseen"]
    monkeypatch.undo()
    assert pickle.loads(data, buffers=buffers).fn(4) == 8


@pytest.mark.parametrize("first", ["work", "outcomes"])
def test_pickled_task_is_itself_whatever_is_imported_first(first):
    task = Task((0, 1), Chunk((Span(InputFile("a.csv")),), 1), 2)
    failure = Failure("a.csv", 1, 5, 2, "x", "call", "ValueError", "bad")
    code = (
        f"import sys, pickle, batchflow.core.{first}\n"
        "print(*(type(value).__name__ for value in pickle.load(sys.stdin.buffer)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps([task, failure]), capture_output=True, check=True
    )
    assert done.stdout.split() == [b"Task", b"Failure"]
