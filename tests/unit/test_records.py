"""Records in memory."""

from __future__ import annotations

import io
import pickle
from array import array
from collections import deque

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from reading import WHOLE, draw, halves, read, read_chunks

import batchflow as bf
from batchflow.errors import InputError
from batchflow.io.readers import records


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ([1, "a", None, {"x": 2}], [1, "a", None, {"x": 2}]),
        ((1, 2, 3), [1, 2, 3]),
        (range(5, 50, 9), [5, 14, 23, 32, 41]),
        ([], []),
        (deque([1, 2, 3]), [1, 2, 3]),
        (array("d", [0.5, 1.5]), [0.5, 1.5]),
        ({7}, [7]),
        (frozenset({7}), [7]),
        ({"a": 1, "b": 2}.items(), [("a", 1), ("b", 2)]),
        (np.arange(3), [0, 1, 2]),
        (pd.Series([1, 2], index=[5, 6]), [1, 2]),
        (pd.Index(["a", "b"]), ["a", "b"]),
        (pl.Series(["a", None]), ["a", None]),
        (pa.array([1, None]), [1, None]),
        (pa.chunked_array([[1], [2, 3]]), [1, 2, 3]),
        (pa.table({"a": [1, 2], "b": ["x", None]}), [{"a": 1, "b": "x"}, {"a": 2, "b": None}]),
        (pa.table({"a": range(10)}).slice(3, 2), [{"a": 3}, {"a": 4}]),
        (pa.record_batch({"a": [1]}), [{"a": 1}]),
        (pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=[8, 9]), [{"a": 1, "b": "x"}, {"a": 2, "b": None}]),
        (
            pl.DataFrame({"a": [1], "s": ["x" * 50], "l": [["y", None]], "t": [{"u": "z"}]}),
            [{"a": 1, "s": "x" * 50, "l": ["y", None], "t": {"u": "z"}}],
        ),
        (iter("ab"), ["a", "b"]),
        ((number * 2 for number in range(3)), [0, 2, 4]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_holds_records(data, expected):
    seen = read(records(data), 2)
    assert seen.rows == expected
    assert seen.numbers == list(range(1, len(expected) + 1))
    assert [place for _, _, place, _ in seen.records] == [(at, at + 1) for at in range(len(expected))]
    assert {uri for uri, *_ in seen.records} <= {"records"}


def test_rows_of_an_array_of_two_dimensions():
    data = np.arange(12).reshape(4, 3)
    source = records(data)
    seen = read(source, 3)
    assert [row.tolist() for row in seen.rows] == data.tolist()
    assert source.table(data).to_pylist() == [{"value": row} for row in data.tolist()]


@pytest.mark.parametrize("data", ["text", b"bytes", {"a": 1}, 5, None, object(), np.array(5)])
def test_what_is_most_often_a_mistake_is_refused(data):
    with pytest.raises(InputError, match=f"not {type(data).__name__}"):
        records(data)


def test_a_generator_is_read_as_the_work_goes_on_and_only_once():
    taken = []

    def numbers():
        for number in range(100):
            taken.append(number)
            yield number

    source = records(numbers())
    (item,) = source.inputs()
    cursor = source.cursor([item], None)
    assert (taken, item.size, cursor.total) == ([], -1, None)
    assert cursor.draw(10).data == list(range(10))
    assert taken == list(range(10))
    assert cursor.draw(1).data == [10]
    assert len(taken) == 11
    rest = cursor.draw(WHOLE)
    assert (rest.key, rest.chunk.weight, rest.data) == ((0, 11), 89, list(range(11, 100)))
    assert cursor.draw(1) is None
    assert cursor.draw(1) is None
    assert taken == list(range(100))


def test_sizes():
    assert [records(data).inputs()[0].size for data in ([1, 2], range(7), np.zeros(3), pa.table({"a": [1]}))] == [
        2,
        7,
        3,
        1,
    ]


def test_a_task_carries_its_own_records_only():
    frame = pl.DataFrame({"s": ["x" * 100] * 100_000})
    source = records(frame)
    drawn = draw(source, 1000)
    assert len(drawn) == 100
    assert len(pickle.dumps(drawn[50].data)) < 2 * 1000 * 100
    assert len(pickle.dumps(source.shipped())) < 1000
    assert drawn[50].data.segments[0].to_pylist() == [{"s": "x" * 100}] * 1000


@pytest.mark.parametrize("data", [list(range(23)), pa.table({"a": range(23)}), np.arange(23), range(23)])
def test_halves(data):
    source = records(data)
    drawn = draw(source, 5)
    parts = [part for one in drawn for part in halves(source, one.chunk, one.data)]
    assert read_chunks(source, parts) == read(source)
    assert len(parts) == 23


@pytest.mark.parametrize(
    ("frame", "rows"),
    [
        (
            pd.DataFrame({"id": [1, "x", None], "n": [1, 2, 3]}),
            [{"id": 1, "n": 1}, {"id": "x", "n": 2}, {"id": None, "n": 3}],
        ),
        (pd.DataFrame({"a": pd.arrays.SparseArray([0, 1])}), [{"a": 0}, {"a": 1}]),
        (pd.DataFrame({"a": [1 + 2j]}), [{"a": 1 + 2j}]),
        (pl.DataFrame({"a": pl.Series([2**100, 1], dtype=pl.Int128)}), [{"a": 2**100}, {"a": 1}]),
    ],
    ids=["mixed objects", "sparse", "complex", "int128"],
)
def test_frame_that_arrow_cannot_hold_gives_its_rows(frame, rows):
    assert bf.map_records(lambda row: row, bf.records(frame), executor="serial").values == rows


def test_frame_with_a_column_twice_is_refused():
    frame = pd.DataFrame([[1, 2], [3, 4]], columns=["a", "a"])
    with pytest.raises(InputError, match="no frame with two columns named 'a': rename one"):
        bf.records(frame)


@pytest.mark.parametrize("shape", [lambda file: file, lambda file: {"f": file}, lambda file: {"a": [{"b": file}]}])
def test_open_file_in_a_result_is_an_error_row(shape, executor):
    result = bf.map_records(
        lambda at: shape(io.TextIOWrapper(io.BytesIO())) if at else at, bf.records([0, 1, 0]), executor=executor
    )
    assert result.values == [0, 0]
    assert result.errors.select(["record", "phase", "message"]).to_pylist() == [
        {
            "record": 2,
            "phase": "convert",
            "message": "the function returned an open file (TextIOWrapper): return its content or its name",
        }
    ]
