"""The end of what tasks print, as it is kept where no file can grow."""

from hypothesis import given
from hypothesis import strategies as st

from batchflow.events import Printed, Waited
from batchflow.reporting import task_output as printed
from batchflow.reporting.task_output import OUTPUT_LOG, OutputTail


def nothing():
    raise FileNotFoundError


def papers(events, earlier=nothing):
    tail = OutputTail(earlier)
    for event in events:
        tail(event)
    return tail.papers()


def test_nothing_is_kept_of_tasks_that_print_nothing():
    assert papers([Waited()], lambda: b"before\n") == {}


def test_lines_come_behind_those_of_earlier_runs():
    events = [Printed("a 0:4", ("one", "two")), Printed("a 4:8", ("\ud800",))]
    kept = papers(events, lambda: b"[z] before\n")
    assert kept == {OUTPUT_LOG: b"[z] before\n[a 0:4] one\n[a 0:4] two\n[a 4:8] \\ud800\n"}


lines = st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=30), max_size=8)


@given(lines, st.lists(lines, max_size=8), st.integers(0, 200))
def test_the_last_whole_lines_are_kept_as_far_as_there_is_room(earlier, new, room):
    before = [f"{line}\n".encode() for line in earlier]
    told = before + [f"[p] {line}\n".encode() for printed in new for line in printed]
    largest, printed.LARGEST = printed.LARGEST, room
    try:
        kept = papers([Printed("p", tuple(printed)) for printed in new], lambda: b"".join(before)).get(
            OUTPUT_LOG, b""
        )
    finally:
        printed.LARGEST = largest
    assert len(kept) <= room
    fitting = next(at for at in range(len(told) + 1) if sum(map(len, told[at:])) <= room)
    assert kept == (b"".join(told[fitting:]) if any(new) else b"")
