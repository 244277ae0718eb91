from hypothesis import given
from hypothesis import strategies as st

from batchflow.combiner.ordering import RecordNumbering, ReorderBuffer
from batchflow.core.chunks import Chunk, InputFile, Span
from batchflow.core.outcomes import Failure, SettledChunk, SpanCount, Stats
from batchflow.core.work import Task

END = (10**9,)


def settled(key, uri="a", start=0, positions=0, failures=(), counted=True, skip=0):
    chunk = Chunk((Span(InputFile(uri), start, start + 1),), 1, skip)
    rows = tuple(Failure(uri, None, None, number, None, "call", "E", "m") for number in failures)
    return SettledChunk(Task(key, chunk), Stats(spans=(SpanCount(uri, positions),)), rows, counted=counted)


@given(st.permutations(range(12)), st.lists(st.integers(0, 11), unique=True, max_size=4))
def test_whatever_the_completion_order_and_halving_the_output_is_in_input_order(order, halved):
    sequencer, out = ReorderBuffer(), []
    for number in range(12):
        sequencer.expect((number,))
    for number in order:
        keys = [(number,)]
        if number in halved:
            keys = [(number, 0), (number, 1)]
            sequencer.split((number,), keys)
        for key in reversed(keys):
            sequencer.settle(settled(key))
            out += [chunk.key for chunk in sequencer.release(END)]
    want = [key for n in range(12) for key in ([(n, 0), (n, 1)] if n in halved else [(n,)])]
    assert out == want
    assert len(sequencer) == 0


def test_nothing_is_given_out_before_the_frontier_allows_it():
    sequencer = ReorderBuffer()
    sequencer.expect((5, 0))
    sequencer.settle(settled((5, 0)))
    assert list(sequencer.release((3, 0))) == []
    assert [chunk.key for chunk in sequencer.release((5, 1))] == [(5, 0)]


def numbers(*chunks):
    numbering = RecordNumbering()
    return [[failure.record for failure in numbering.number(chunk).failures] for chunk in chunks]


def test_records_are_counted_from_one_through_the_chunks_of_an_input():
    assert numbers(
        settled((0,), positions=10, failures=[0, 9]),
        settled((1,), start=1, positions=5, failures=[2]),
        settled((2,), uri="b", positions=5, failures=[0]),
    ) == [[1, 10], [13], [1]]


def test_halves_count_on():
    assert numbers(
        settled((0, 0), positions=4, failures=[1]), settled((0, 1), positions=6, failures=[1], skip=4)
    ) == [[2], [6]]


def test_behind_a_chunk_that_was_never_counted_numbers_are_unknown_until_the_next_input():
    assert numbers(
        settled((0,), positions=3, failures=[0]),
        settled((1,), start=1, counted=False),
        settled((2,), start=2, positions=3, failures=[0]),
        settled((3,), uri="b", positions=3, failures=[0]),
    ) == [[1], [], [None], [1]]
