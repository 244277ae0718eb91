"""JSON Lines: what Python's `json` accepts is a record."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from reading import WHOLE, read, writer

from batchflow.io.readers import read_json

VALUES = [
    {"a": 1, "b": [1, 2.5, None, True, "x"], "c": {"d": {}}},
    [],
    'text with \\ " \u2028 \x00 é 日本 😀',
    0,
    -1.5e-300,
    2**63,
    10**40,
    None,
    True,
    {"": ""},
    {"a": "\ud83d"},
]


@pytest.fixture
def write(tmp_path: Path):
    return writer(tmp_path)


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("weight", [WHOLE, 1, 30])
def test_every_value_comes_back(write, ascii_only, weight):
    values = VALUES if ascii_only else VALUES[:-1]  # half a surrogate pair has no UTF-8
    path = write("\n".join(json.dumps(value, ensure_ascii=ascii_only) for value in values))
    assert read(read_json(path), weight).rows == values


def test_what_is_not_a_number_comes_as_python_reads_it(write):
    seen = read(read_json(write('NaN\nInfinity\n-Infinity\n1e400\n{"a": 1, "a": 2}\n')))
    assert math.isnan(seen.rows[0])
    assert seen.rows[1:] == [math.inf, -math.inf, {"a": 2}]
    assert [failure[-1] for failure in seen.failures] == ["the number 1e400 is beyond what a float holds"]


@pytest.mark.parametrize("weight", [WHOLE, 1])
def test_blank_lines_are_no_records_but_count_as_lines(write, weight):
    path = write(b"\xef\xbb\xbf\n{}\r\n \t\r\n\n[1]\n\n")
    seen = read(read_json(path), weight)
    assert seen.records == [(path, 2, (4, 8), {}), (path, 5, (13, 17), [1])]
    assert seen.failures == []


@pytest.mark.parametrize("weight", [WHOLE, 1])
def test_a_line_that_is_no_json_is_a_failure_of_its_own(write, weight):
    path = write(b'{"a": 1}\n{"a": }\n{"a": 2} x\n"\xff"\n{"a":\n1}\n{"a": 3}')
    seen = read(read_json(path), weight)
    assert [(number, row) for _, number, _, row in seen.records] == [(1, {"a": 1}), (7, {"a": 3})]
    assert [failure[1:5] for failure in seen.failures] == [
        (2, 9, 17, '{"a": }'),
        (3, 17, 28, '{"a": 2} x'),
        (4, 28, 32, '"\\xff"'),
        (5, 32, 38, '{"a":'),
        (6, 38, 41, "1}"),
    ]
    assert seen.messages[0] == "Expecting value: line 1 column 7 (char 6)"
    assert "Extra data" in seen.messages[1]


def test_a_batch_is_a_table(write):
    source = read_json(write('{"a": 1}\n{"b": "x"}\n'))
    assert source.table(read(source).rows).to_pylist() == [{"a": 1, "b": None}, {"a": None, "b": "x"}]
