"""Lines as they are gathered, however they are written."""

import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchflow.worker import stdio_capture as prints
from batchflow.worker.stdio_capture import LIMIT, CapturingStream, DriverCapture, Gathered, LineBuffer

TEXT = st.text(st.sampled_from("ab \n"), max_size=30)


@given(st.lists(TEXT, max_size=8))
def test_lines_do_not_depend_on_how_they_are_written(pieces):
    text = "".join(pieces)
    gathered = LineBuffer()
    for piece in pieces:
        gathered.write(piece.encode())
    *lines, rest = text.split("\n")
    assert bool(gathered) == bool(text)
    assert gathered.take() == (*lines, *([rest] if rest else []))
    assert (bool(gathered), gathered.take()) == (False, ())


@given(st.lists(st.sampled_from(["10%", "20", "\r", "\n", "\r\n"]), max_size=12))
def test_what_is_drawn_again_is_seen_once(pieces):
    """As it would stand on a terminal whose lines are drawn again from their beginning."""
    gathered = LineBuffer()
    for piece in pieces:
        gathered.write(piece.encode())
    expected = [line.rstrip("\r").split("\r")[-1] for line in "".join(pieces).split("\n")]
    *lines, rest = expected
    assert [line for line in gathered.take() if line] == [line for line in (*lines, rest) if line]


def test_a_line_without_an_end_is_bounded_too():
    gathered = LineBuffer()
    for _ in range(1000):
        gathered.write(b"x" * 1000)
    told = gathered.take()
    assert sum(map(len, told)) <= LIMIT + 100
    assert told[-1].endswith("lines more, which are too much)")
    for number in range(100_000):
        gathered.write(f"\r{number} of 100000".encode())  # a progress bar
    assert gathered.take() == ("99999 of 100000",)


def test_bars_of_threads_and_lines_of_others_stand_apart():
    gathered = LineBuffer()
    gathered.write(b"main, ")
    other = threading.Thread(target=gathered.write, args=(b"other\n",))
    other.start()
    other.join()
    gathered.write(b"still main\n")
    assert gathered.take() == ("other", "main, still main")


def test_a_tap_is_a_stream_like_any_other(capfd):
    with open("/dev/stdout", "w", encoding="utf-8") as real:
        tap = CapturingStream(real, "<stdout>")
        assert (tap.encoding, tap.isatty(), tap.writable(), tap.readable(), tap.name) == (
            "utf-8",
            False,
            True,
            False,
            "<stdout>",
        )
        assert tap.fileno() == real.fileno()
        print("before", file=tap)
        gathered = LineBuffer()
        with Gathered(gathered):
            print("inside", file=tap)
            tap.buffer.write(b"bytes\n")
            tap.close()
            tap.buffer.close()
            print("closed by somebody", file=tap)
        print("after", file=tap, flush=True)
        assert gathered.take() == ("inside", "bytes", "closed by somebody")
    assert capfd.readouterr().out == "before\nafter\n"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_process_without_streams_prints_nowhere(name, monkeypatch):
    monkeypatch.setattr(sys, name, None)
    here = DriverCapture()
    with here:
        print("x", file=getattr(sys, name))
    assert (getattr(sys, name), here.prints.take()) == (None, ("x",))


def test_a_task_that_runs_a_job_where_it_runs_itself_leaves_the_streams_as_they_were():
    here, before = prints.DriverCapture(), (sys.stdout, sys.stderr)
    with here:
        print("a")
        with here:
            print("b")
        print("c")
    assert ((sys.stdout, sys.stderr), prints._now) == (before, [None])
    assert here.prints.take() == ("a", "b", "c")


def test_nobody_gathers_when_all_is_done():
    assert prints._now == [None]
