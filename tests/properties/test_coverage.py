"""What is done and what is missing make the whole, once."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from batchflow.core.chunks import Chunk, InputFile, Span
from batchflow.core.coverage import Coverage, missing_windows

ITEM = InputFile("a", 100)


@given(st.lists(st.integers(1, 99), unique=True), st.data())
def test_gaps_and_ranges_tile_an_input(cuts, data):
    ends = [0, *sorted(cuts), 100]
    spans = [Span(ITEM, *pair) for pair in pairwise(ends)]
    done = data.draw(st.lists(st.sampled_from(spans), unique=True))
    coverage = Coverage(Chunk((span,), 1) for span in done)
    gaps = coverage.gaps(ITEM)
    assert (gaps is None) == (not done)
    pieces = sorted([*coverage.ranges(ITEM), *(gaps or [(0, None)])])
    at = 0
    for start, stop in pieces:
        assert start == at
        at = 100 if stop is None else stop
    assert at == 100


@given(st.integers(2, 60), st.data())
def test_windows_and_what_is_missing_tile_a_halved_chunk(records, data):
    whole = Chunk((Span(ITEM),), 100)
    parts, done = [whole], []
    counts = {whole: records}
    for _ in range(data.draw(st.integers(1, 6))):
        chunk = data.draw(st.sampled_from(parts))
        if counts[chunk] < 2:
            continue
        parts.remove(chunk)
        for half in chunk.halve(counts[chunk]):
            counts[half] = half.take
            parts.append(half)
    halved = [part for part in parts if part.of is not None]
    done = data.draw(st.lists(st.sampled_from(halved), unique=True, min_size=1)) if halved else []
    if not done:
        return
    windows = sorted([*((part.skip, part.take) for part in done), *missing_windows(done)])
    at = 0
    for skip, take in windows:
        assert skip == at
        at += take
    assert at == records
    coverage = Coverage(done)
    assert coverage.gaps(ITEM) == []
    assert [(chunk.skip, chunk.take) for chunk in coverage.leftovers()] == list(missing_windows(done))
