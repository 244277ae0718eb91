"""A chunk whose records nobody can count is cut until each is alone, and nothing is lost on the way."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import draw, read, read_chunks, ready

import batchflow as bf

STEADY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


def singles(source, chunk):
    """Yield what cutting again and again leads to."""
    parts = source.parts(chunk)
    if len(parts) < 2:
        yield chunk, parts
        return
    for part in parts:
        yield from singles(source, part)


def check(source, weight):
    """Check that every record is alone in the end, in its place and with its number."""
    source = ready(source)
    chunks = [one.chunk for one in sorted(draw(source, weight), key=lambda one: one.key)]
    ended = [single for chunk in chunks for single in singles(source, chunk)]
    for chunk, parts in ended:
        alone = len(read_chunks(source, [(chunk, None)]).records)
        assert alone <= len(parts) == 1 or (alone, list(parts)) == (0, [])
    seen = read_chunks(source, [(chunk, None) for chunk, _ in ended])
    assert seen.records == read(source, weight).records


LINES = st.lists(st.text(alphabet="ab1\r,é", max_size=8), min_size=1, max_size=12)


@given(LINES, st.booleans(), st.sampled_from([5, 40, 10**6]))
@STEADY
def test_lines(tmp_path, lines, last, weight):
    text = "\n".join(lines) + "\n" * last
    if text:
        (tmp_path / "a.txt").write_bytes(text.encode())
        check(bf.read_text(tmp_path / "a.txt"), weight)


CELLS = st.text(alphabet='ab1\n\r,"', max_size=6)


@given(st.lists(st.tuples(CELLS, CELLS), max_size=8), st.sampled_from([5, 40, 10**6]))
@STEADY
def test_csv(tmp_path, rows, weight):
    quoted = ("".join(f'"{cell.replace(chr(34), chr(34) * 2)}",' for cell in row)[:-1] + "\n" for row in rows)
    (tmp_path / "a.csv").write_bytes(("x,y\n" + "".join(quoted)).encode())
    check(bf.read_csv(tmp_path / "a.csv", types=str), weight)


@given(st.integers(1, 40), st.integers(1, 20), st.sampled_from([50, 300, 10**6]))
@STEADY
def test_parquet(tmp_path, rows, group, weight):
    pq.write_table(pa.table({"n": range(rows)}), tmp_path / "a.parquet", row_group_size=group)
    check(bf.read_parquet(tmp_path / "a.parquet"), weight)


@pytest.mark.parametrize("name", ["a.txt.gz", "b"])
def test_what_is_compressed_cannot_be_cut(tmp_path, name):
    import gzip

    (tmp_path / name).write_bytes(gzip.compress(b"1\n2\n"))
    source = bf.read_text(tmp_path / name)
    [drawn] = draw(source)
    assert list(source.parts(drawn.chunk)) == []
