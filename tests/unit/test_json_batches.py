"""JSON records as tables: one schema for all files, whatever the cut."""

from __future__ import annotations

import json
from datetime import date

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import batchflow as bf
from batchflow.errors import FormatError


def batches(paths, chunk=None, fn=None, **options):
    fn = fn or (lambda table: table)
    return bf.map_batches(fn, bf.read_json(paths, **options), executor="serial", chunk=chunk, max_errors=1.0)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("executor", ["serial", "processes"])
@pytest.mark.parametrize("chunk", ["40B", "200B", "2kB", None])
def test_columns_any_cut_are_those_of_the_file(tmp_path, chunk, executor):
    rows = [{"a": n, **({"b": {"x": n}} if n % 100 == 7 else {})} for n in range(300)]
    path = write(tmp_path / "a.jsonl", rows)
    source = bf.read_json(path)
    result = bf.map_batches(lambda table: table.select(["b", "a"]), source, executor=executor, chunk=chunk)
    assert result.report.failed == 0
    assert result.table.to_pylist() == [{"b": row.get("b"), "a": row["a"]} for row in rows]


def test_columns_any_order_of_files_are_the_same(tmp_path):
    paths = [write(tmp_path / "a.jsonl", [{"a": 1}]), write(tmp_path / "b.jsonl", [{"b": "x", "a": 1.5}])]
    kinds = {str(batches(order).table.schema.field("a").type) for order in (paths, paths[::-1])}
    assert kinds == {"double"}


@pytest.mark.parametrize("chunk", ["30B", None])
def test_late_field_and_other_type_are_error_rows_with_a_cure(tmp_path, chunk):
    rows = [{"a": n} for n in range(1000)] + [{"a": 1, "late": 5}, {"a": "x"}, {"a": 2.5}, {"a": None}, {"a": 7}]
    path = write(tmp_path / "a.jsonl", rows)
    result = batches(path, chunk)
    assert result.table["a"].to_pylist() == [*range(1000), None, 7]
    assert [(row["record"], row["phase"], row["message"]) for row in result.errors.to_pylist()] == [
        (
            1001,
            "read",
            "field 'late' is not in the sample that the columns were inferred from: pass "
            "types={'late': int} (--types late=int)",
        ),
        (
            1002,
            "read",
            "column 'a': 'x' is not of type int64, inferred from the first rows: to read such values as JSON "
            "text, pass types={'a': str} (--types a=str)",
        ),
        (
            1003,
            "read",
            "column 'a': 2.5 is not of type int64, inferred from the first rows: to read such values as JSON "
            "text, pass types={'a': str} (--types a=str)",
        ),
    ]
    assert json.loads(result.errors["payload"][0].as_py().replace("'", '"')) == rows[1000]
    result = batches(path, chunk, types={"a": str, "late": int})
    assert result.table.to_pylist() == [
        {
            "a": row["a"] if isinstance(row["a"], str) or row["a"] is None else json.dumps(row["a"]),
            "late": row.get("late"),
        }
        for row in rows
    ]
    assert batches(path, chunk, types={"a": float, "late": pa.int8()}).report.failed == 1


def test_types_named_are_those_of_the_table(tmp_path):
    path = write(
        tmp_path / "a.jsonl", [{"d": "2024-02-29", "n": 1, "l": []}, {"d": None, "x": 2**53 + 1}, {"d": "no"}]
    )
    types = {"d": date, "n": float, "l": pa.list_(pa.int8()), "x": float}
    result = batches(path, types=types)
    assert result.table.schema.types == [pa.date32(), pa.float64(), pa.list_(pa.int8()), pa.float64()]
    assert result.table.to_pylist() == [{"d": date(2024, 2, 29), "n": 1.0, "l": [], "x": None}]
    assert result.errors["record"].to_pylist() == [2, 3]
    with pytest.raises(FormatError, match="is not a type that a column can have: use one of str, int"):
        bf.read_json(path, types={"a": "decimal"})


def test_plan_shows_the_columns_and_retry_keeps_them(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"a": n, "b": [n]} for n in range(5)])
    job = bf.Job(lambda table: table, bf.read_json(path, types={"late": str}), per="batch", into=tmp_path / "o/")
    shown = "types     a: int64, b: list<item: int64>, late: string, from the first 1,000 rows of 1 file"
    assert shown in job.plan().explain()
    assert job.run().report.reads["types"] == shown.removeprefix("types").strip()
    write(tmp_path / "b.jsonl", [{"a": 1.5}])
    again = bf.Job(
        job.fn, bf.read_json([path, tmp_path / "b.jsonl"], types={"late": str}), per="batch", into=tmp_path / "o/"
    ).run()
    assert again.errors["source"].to_pylist() == [
        str(tmp_path / "b.jsonl")
    ]  # the types are those of the first run


CELLS = (
    st.none()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab", max_size=2)
)
ROWS = st.lists(
    st.dictionaries(
        st.sampled_from("abc"),
        CELLS | st.lists(CELLS, max_size=2) | st.dictionaries(st.sampled_from("xyz"), CELLS, max_size=2),
        max_size=3,
    ),
    min_size=1,
    max_size=10,
)


@given(rows=ROWS, chunk=st.sampled_from(["1B", "20B", "60B"]))
@settings(max_examples=80, deadline=None)
def test_rows_and_errors_any_cut_are_the_same(tmp_path_factory, rows, chunk):
    path = write(tmp_path_factory.mktemp("json") / "a.jsonl", rows)
    whole, cut = batches(path), batches(path, chunk)
    assert cut.table.to_pylist() == whole.table.to_pylist()
    assert cut.errors["record"].to_pylist() == whole.errors["record"].to_pylist()
    assert cut.errors["message"].to_pylist() == whole.errors["message"].to_pylist()
    bad = set(whole.errors["record"].to_pylist())
    kept = [row for number, row in enumerate(rows, 1) if number not in bad]
    for row, made in zip(kept, whole.table.to_pylist(), strict=True):
        for name, cell in made.items():
            value = row.get(name)
            if isinstance(value, dict):
                value = {key: value.get(key) for key in cell}
            assert cell == value


def test_sample_that_no_type_holds_is_error_rows(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"a": [0, ""]}\n{"a": [1]}\n{"a": ["x", 2]}\n')
    result = batches(path)
    assert result.table.to_pylist() == [{"a": [1]}]
    assert result.errors["record"].to_pylist() == [1, 3]
