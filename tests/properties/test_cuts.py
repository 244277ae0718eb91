"""Any cut gives the same: the laws of sources."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import count as integers
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from reading import WHOLE, draw, halves, read, read_chunks, ready

from batchflow.io.readers import files, read_csv, read_json, read_parquet, read_text, records
from batchflow.io.sources import Source
from batchflow.io.sources import csv_reader as csv_rows
from batchflow.io.sources import csv_splits as quotes
from batchflow.io.sources import line_reader as lines
from batchflow.io.sources.csv_splits import CsvSplitter, ends_quoted

STEADY = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))

TEXT_PIECES = [
    "a",
    "é",
    "日",
    "\n",
    "\n",
    "\r\n",
    "\r",
    "\0",
    " ",
    "\ufeff",
    "x" * 40,
    "\u2028",
    "\udcff",
    "\udce6",
]
JSON_PIECES = [
    "{}\n",
    '{"a": "é\\n"}\n',
    "[1, 2.5]\r\n",
    "\n",
    "  \n",
    "{",
    "}",
    "\udcff",
    '"日"',
    "null\n",
    "x" * 30,
    "\n",
]
CSV_PIECES = [
    "a",
    "b",
    "1",
    "2.5",
    "é",
    "日",
    ",",
    ",",
    '"',
    '""',
    "\n",
    "\n",
    "\r\n",
    "\r",
    "\0",
    " ",
    '"x,\n"',
    '"x""\r\n"',
    'q"r',
    "\ufeff",
    "\udcff",
    "x" * 40,
]
WEIGHTS = st.lists(st.integers(1, 12) | st.integers(12, 10_000), min_size=1, max_size=6)
_numbers = integers()


def pieces(some: list[str], most: int = 40) -> st.SearchStrategy[bytes]:
    return st.lists(st.sampled_from(some), max_size=most).map(
        lambda parts: "".join(parts).encode("utf-8", "surrogateescape")
    )


@pytest.fixture(scope="module")
def write():
    """Return a function that writes a new file."""
    with tempfile.TemporaryDirectory() as folder:

        def written(data: bytes) -> str:
            path = f"{folder}/{next(_numbers)}"
            Path(path).write_bytes(data)
            return path

        yield written


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Read a few bytes at a time, so that short texts have many blocks."""
    monkeypatch.setattr(lines, "BLOCK_BYTES", 17)
    monkeypatch.setattr(csv_rows, "_BLOCK_ROWS", 3)
    monkeypatch.setattr(quotes, "_LEAST_BYTES", 1)


def read_texts(paths: Any) -> Source:
    return read_csv(paths, types=str)


FORMATS: dict[str, tuple[Callable[..., Source], list[str]]] = {
    "text": (read_text, TEXT_PIECES),
    "json": (read_json, JSON_PIECES),
    "csv": (read_texts, CSV_PIECES),
    "typed csv": (read_csv, CSV_PIECES),
    "csv without header": (lambda paths: read_csv(paths, types=str, columns=("p", "q")), CSV_PIECES),
}


@pytest.fixture(params=FORMATS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@given(data=st.data())
@settings(STEADY, max_examples=150)
def test_any_cut_of_a_text_gives_the_records_numbers_and_places_of_the_whole(write, form, data):
    reader, some = FORMATS[form]
    content = data.draw(pieces(some, 60)) * data.draw(st.sampled_from([1, 1, 40]))
    source = reader(write(content))
    whole = read(source)
    assert read(source, data.draw(WEIGHTS)) == whole
    for (_, _, (_, stop), _), (_, _, (start, _), _) in zip(whole.records, whole.records[1:], strict=False):
        assert stop <= start
    assert all(content[start:stop] for _, _, (start, stop), _ in whole.records)


@given(data=st.data())
@settings(STEADY, max_examples=60)
def test_a_text_cut_at_every_byte(write, form, data):
    reader, some = FORMATS[form]
    source = reader(write(data.draw(pieces(some, 20))))
    assert read(source, 1) == read(source)


@given(data=st.data())
@settings(STEADY, max_examples=60)
def test_halves_down_to_single_records_give_the_whole(write, form, data):
    reader, some = FORMATS[form]
    contents = data.draw(st.lists(pieces(some, 12), min_size=1, max_size=4))
    paths = [write(content) for content in contents]
    source = ready(reader(paths))
    drawn = draw(source, data.draw(st.sampled_from([1, 30, WHOLE])))
    parts = [part for one in drawn for part in halves(source, one.chunk)]
    assert read_chunks(source, parts) == read(source)


@given(content=pieces(TEXT_PIECES, 60))
@settings(STEADY, max_examples=150)
def test_text_is_what_stands_between_line_feeds(write, content):
    body = content.removeprefix("\ufeff".encode())
    texts = body.split(b"\n")[: None if body[-1:] not in (b"\n", b"") else -1]
    seen = read(read_text(write(content)), 5)
    expected = {}
    for number, line in enumerate(texts, 1):
        with suppress(UnicodeDecodeError):
            expected[number] = line.removesuffix(b"\r").decode()
    assert dict(zip(seen.numbers, seen.rows, strict=True)) == expected
    assert [failure[1] for failure in seen.failures] == [
        at + 1 for at in range(len(texts)) if at + 1 not in expected
    ]


def header_of(file) -> list[str]:
    """Return the first row that is no blank line; `csv.DictReader` would take such a line for the header."""
    return next((row for row in csv.reader(file) if len(row) > 1 or (row and row[0].strip())), [])


def by_python(path: str) -> tuple[list[dict[str, str]], int]:
    """Return the records of a file as `csv.DictReader` gives them, and how many rows have no place among them.

    Those are rows of another length, and one whose quote is never closed.
    """
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        lines = list(file)
    is_open = [*csv.reader([*lines, "mark,mark"])][-1] != ["mark", "mark"]
    text = io.StringIO("".join(lines), newline="")
    header = header_of(text)
    rows = list(csv.DictReader(text, header))
    if is_open:
        del rows[-1:]
    fit = [row for row in rows if None not in row and None not in row.values()]
    return fit, len(rows) - len(fit) + is_open


@given(content=pieces([piece for piece in CSV_PIECES if piece != "\udcff"], 60), weights=WEIGHTS)
@settings(STEADY, max_examples=400)
def test_csv_is_what_python_reads(write, content, weights):
    path = write(content)
    with open(path, newline="", encoding="utf-8-sig") as file:
        header = header_of(file)
    assume(len(set(header)) == len(header))
    expected, misfits = by_python(path)
    seen = read(read_texts(path), weights)
    assert (seen.rows, len(seen.failures)) == (expected, misfits)


@given(
    block=pieces(['"', '"', '""', ",", "a", "\n", "\r", 'x"', ',"', '",'], 30).map(lambda text: text + b"\n"),
    quoted=st.booleans(),
)
@settings(STEADY, max_examples=500)
def test_an_open_quote_is_open_where_python_has_it_open(block, quoted):
    """One row more with a mark in it tells whether Python's reader was inside a field."""
    text = ('"' if quoted else "") + block.decode()
    rows = list(csv.reader([*text.splitlines(keepends=True), "mark"]))
    assert ends_quoted(block, quoted, b",", b'"') == (rows[-1] != ["mark"])


@given(content=pieces(CSV_PIECES, 200), weights=WEIGHTS)
@settings(STEADY, max_examples=100)
def test_cuts_of_csv_tile_the_file(write, content, weights):
    path = write(content * 20)
    (item,) = read_texts(path).inputs()
    cuts = CsvSplitter(item, ",", '"', 0, ("a",))
    at = 0
    for weight in weights:
        cut = cuts.cut(weight)
        if cut is None:
            break
        span, cost = cut
        assert (span.start, cost, span.header) == (at, span.stop - span.start, ("a",) if at else None)
        at = span.stop
    while (cut := cuts.cut(10_000)) is not None:
        assert cut[0].start == at
        at = cut[0].stop
    assert at == item.size


@given(data=st.data())
@settings(STEADY, max_examples=100)
def test_chunks_tile_every_input_whatever_the_sizes(write, data):
    reader = data.draw(st.sampled_from([read_text, read_texts, files]))
    sizes = data.draw(st.lists(st.integers(0, 30) | st.integers(0, 60_000), min_size=1, max_size=12))
    paths = [write(b"12345678\n" * (size // 9) + b"x" * (size % 9)) for size in sizes]
    compressed = data.draw(st.sets(st.integers(0, len(paths) - 1)))
    for at in compressed:
        os.rename(paths[at], f"{paths[at]}.gz")
        paths[at] += ".gz"
    heavy = data.draw(st.none() | st.integers(0, 300_000))
    drawn = draw(reader(paths), data.draw(WEIGHTS), heavy)
    assert len({one.key for one in drawn}) == len(drawn)
    at: dict[str, int | None] = dict.fromkeys(paths, 0)
    order: list[str] = []
    for one in sorted(drawn, key=lambda one: one.key):
        for span in one.chunk.spans:
            uri = span.input.uri
            if span.whole:
                assert at[uri] == 0
                at[uri] = None
            else:
                assert at[uri] is not None
                assert span.start == at[uri] or (reader is read_texts and at[uri] == 0)
                assert span.start < span.stop
                at[uri] = span.stop
            order += [uri] if order[-1:] != [uri] else []
    ends = {path: None if end is None or end == os.path.getsize(path) else end for path, end in at.items()}
    assert order == [path for path in paths if path in order]
    left = {path for path, end in ends.items() if end is not None}
    assert all(reader is read_texts and end == 0 for path, end in ends.items() if path in left) or not left


@given(data=st.data())
@settings(STEADY, max_examples=60)
def test_any_cut_of_parquet_gives_the_rows_of_the_whole(write, data):
    groups = data.draw(st.lists(st.integers(0, 40), max_size=6))
    path = write(b"")
    with pq.ParquetWriter(path, pa.schema([("n", pa.int64())])) as writer:
        for at, rows in enumerate(groups):
            writer.write_table(pa.table({"n": pa.array(range(at * 100, at * 100 + rows), pa.int64())}))
    source = read_parquet(path)
    whole = read(source)
    assert whole.rows == [{"n": at * 100 + row} for at, rows in enumerate(groups) for row in range(rows)]
    drawn = draw(source, data.draw(WEIGHTS))
    assert read_chunks(source, [(one.chunk, None) for one in drawn]) == whole
    assert read_chunks(source, [part for one in drawn for part in halves(source, one.chunk)]) == whole


@given(
    size=st.integers(0, 200),
    kind=st.sampled_from(
        [list, tuple, iter, lambda numbers: pa.table({"n": pa.array(numbers, pa.int64())}), range]
    ),
    weights=WEIGHTS,
)
@settings(STEADY, max_examples=100)
def test_records_in_memory_tile(size, kind, weights):
    data = range(size) if kind is range else kind(list(range(size)))
    seen = read(records(data), weights)
    assert [row["n"] if isinstance(row, dict) else row for row in seen.rows] == list(range(size))
    assert [place for _, _, place, _ in seen.records] == [(at, at + 1) for at in range(size)]
