"""Text files: a record is a line."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from reading import WHOLE, draw, halves, read, read_chunks, ready, writer

from batchflow.io.readers import read_text


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    return writer(tmp_path)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"a", ["a"]),
        (b"a\n", ["a"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\r", ["a"]),
        (b"a\rb\n", ["a\rb"]),
        (b"\r\n\n\r\n", ["", "", ""]),
        (b"a\r\r\n", ["a\r"]),
        (b"\xef\xbb\xbf", []),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),
        (b"\xef\xbb\xbf\n", [""]),
        (b"a\0b\n\0\n", ["a\0b", "\0"]),
        ("日本\u2028\x85\x0b\n".encode(), ["日本\u2028\x85\x0b"]),
    ],
)
def test_lines_end_at_line_feeds_only(write, data, expected):
    for weight in (WHOLE, 1, 2, 3):
        seen = read(read_text(write(data)), weight)
        assert (seen.rows, seen.numbers, seen.failures) == (expected, list(range(1, len(expected) + 1)), [])


def test_places_are_bytes_with_the_line_feed(write):
    path = write("\ufeffä\r\n\nlast")
    expected = [(path, 1, (3, 7), "ä"), (path, 2, (7, 8), ""), (path, 3, (8, 12), "last")]
    for weight in (WHOLE, 1):
        assert read(read_text(path), weight).records == expected


@pytest.mark.parametrize("weight", [WHOLE, 1, 4])
def test_a_line_that_is_not_utf8_is_a_failure_of_its_own(write, weight):
    path = write(b"one\nt\xffo\nthree\n\xe6\x97\nfive")
    seen = read(read_text(path), weight)
    assert [(number, row) for _, number, _, row in seen.records] == [(1, "one"), (3, "three"), (5, "five")]
    assert [failure[:5] for failure in seen.failures] == [
        (path, 2, 4, 8, "t\\xffo"),
        (path, 4, 14, 17, "\\xe6\\x97"),
    ]
    assert all("can't decode byte" in message for message in seen.messages)


def test_payloads_are_cut(write):
    seen = read(read_text(write(b"\xff" + b"x" * 5000)))
    assert seen.failures[0][4] == "\\xff" + "x" * 995 + "…"


def test_a_line_of_fifty_megabytes(write):
    long = "x" * 50_000_000
    path = write(f"a\n{long}\nb\n")
    started = time.perf_counter()
    whole = read(read_text(path))
    assert whole.rows == ["a", long, "b"]
    assert [place for _, _, place, _ in whole.records] == [(0, 2), (2, 50_000_003), (50_000_003, 50_000_005)]
    for weight in (20_000_000, 1_000_000):
        assert read(read_text(path), weight) == whole
    assert time.perf_counter() - started < 10


def test_blocks_end_where_lines_do(write):
    rows = ["x" * (at % 997) for at in range(3000)]
    path = write("\n".join(rows))
    blocks = list(ready(read_text(path)).read(draw(read_text(path))[0].chunk))
    assert len(blocks) > 3
    assert [row for block in blocks for row in block.rows] == rows
    assert sum(block.nbytes for block in blocks) == sum(map(len, rows)) + len(rows) - 1


def test_halves_of_a_span_in_the_middle(write):
    path = write(b"a\nb\n\xff\nd\ne\n" * 20)
    source = read_text(path)
    drawn = draw(source, 37)
    whole = read(source)
    assert read_chunks(source, [half for one in drawn for half in halves(source, one.chunk)]) == whole
