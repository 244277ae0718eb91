"""The result depends on input, function and options only: every executor and every cut gives the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

import batchflow as bf

COUNT = 24
CUTS = {"one": 1, "few": 5, "all": COUNT}
LINE_BYTES = 40
SUMMER, WINTER = timezone(timedelta(hours=2)), timezone(timedelta(hours=1))


def mixed_keys(n: int) -> Any:
    """Return rows of which each lacks columns of others."""
    return {f"k{n % 3}": n, "shared": n} if n % 4 else {}


def mixed_order(n: int) -> Any:
    return {"a": n, "b": -n} if n % 2 else {"b": -n, "a": n}


def mixed_numbers(n: int) -> Any:
    return {"n": n if n < COUNT - 2 else n + 0.5}


def numpy_numbers(n: int) -> Any:
    return {"n": (np.int8(n), np.uint64(n), np.float32(n), n)[n % 4]}


def large_numbers(n: int) -> Any:
    return {"n": (2**63 + n, n + 0.5, -n)[n % 3]}


def text_and_numbers(n: int) -> Any:
    return {"x": "text" if n == COUNT // 2 else n}


def offsets(n: int) -> Any:
    return {"at": datetime(2024, 7, 1, n % 24, tzinfo=SUMMER if n % 2 else WINTER)}


def naive_and_aware(n: int) -> Any:
    return {"at": datetime(2024, 7, 1, tzinfo=UTC if n == 7 else None)}


def nanoseconds(n: int) -> Any:
    return {"at": pd.Timestamp(1_700_000_000_000_000_000 + n), "took": pd.Timedelta(n, "ns")}


def decimals(n: int) -> Any:
    return {"price": Decimal(n).scaleb(-(n % 5))}


def nested(n: int) -> Any:
    return {"tags": [{"id": n}] * (n % 3), "extra": {f"x{n % 2}": n}}


def scalars(n: int) -> Any:
    return (None, n, float(n), n)[n % 4]


def empty_rows(n: int) -> Any:
    return {}


def objects(n: int) -> Any:
    return {n} if n % 2 else (n, str(n))


def some_raise(n: int) -> Any:
    if n % 5 == 2:
        raise ValueError(f"no {n}")
    return {"n": n}


def changes_its_argument(record: Any) -> Any:
    record["n"] += 1
    return record


FUNCTIONS: dict[str, Callable[[int], Any]] = {
    fn.__name__: fn
    for fn in (
        mixed_keys,
        mixed_order,
        mixed_numbers,
        numpy_numbers,
        large_numbers,
        text_and_numbers,
        offsets,
        naive_and_aware,
        nanoseconds,
        decimals,
        nested,
        scalars,
        empty_rows,
        objects,
        some_raise,
    )
}


class Seen(NamedTuple):
    """All of a result that a user can compare."""

    values: Any
    errors: list[dict[str, Any]]
    table: Any
    schema: Any


def observe(result: bf.Result) -> Seen:
    """Return what a result holds; values as text, which tells 1 from 1.0 and from True."""
    errors = result.errors.select(["source", "record", "payload", "phase", "error_type", "message"]).to_pylist()
    values = repr(result.values)
    try:
        table = result.table
    except bf.errors.SchemaError as error:
        return Seen(values, errors, str(error), None)
    return Seen(values, errors, repr(table.to_pylist()), table.schema)


@pytest.fixture(params=CUTS)
def cut(request: pytest.FixtureRequest) -> int:
    """Records of a chunk."""
    return CUTS[request.param]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_values_in_memory_same_everywhere(name, executor, cut):
    fn = FUNCTIONS[name]
    ours = bf.map_records(fn, bf.records(range(COUNT)), executor=executor, chunk=cut)
    plain = []
    for n in range(COUNT):
        try:
            plain.append(fn(n))
        except ValueError:
            continue
    assert repr(ours.values) == repr([value for value in plain if value is not None])
    reference = bf.map_records(fn, bf.records(range(COUNT)), executor="serial", chunk=COUNT)
    assert observe(ours) == observe(reference)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "objects"])
def test_values_on_disk_same_everywhere(name, suffix, executor, cut, tmp_path):
    fn = FUNCTIONS[name]
    ours = bf.map_records(
        fn, bf.records(range(COUNT)), into=tmp_path / f"ours.{suffix}", executor=executor, chunk=cut
    )
    reference = bf.map_records(
        fn, bf.records(range(COUNT)), into=tmp_path / f"reference.{suffix}", executor="serial", chunk=COUNT
    )
    assert observe(ours) == observe(reference)


def write_lines(path: Path) -> Path:
    """Write JSON Lines in which columns appear late, disappear and change from whole numbers to fractions."""
    rows = [
        {"n": n} | ({"late": str(n)} if n > COUNT - 4 else {}) | ({"x": n / 2} if n % 3 else {"x": n})
        for n in range(COUNT)
    ]
    path.write_text("".join(json.dumps(row).ljust(LINE_BYTES - 1) + "\n" for row in rows))
    return path


def test_json_batches_same_everywhere(executor, cut, tmp_path):
    source = write_lines(tmp_path / "in.jsonl")
    ours = bf.map_batches(
        lambda table: table, bf.read_json(source), executor=executor, chunk=f"{cut * LINE_BYTES}B"
    )
    reference = bf.map_batches(lambda table: table, bf.read_json(source), executor="serial")
    assert observe(ours) == observe(reference)
    assert ours.table["late"].to_pylist() == [None] * (COUNT - 3) + [str(n) for n in range(COUNT - 3, COUNT)]
    assert ours.table["x"].to_pylist() == [n / 2 if n % 3 else n for n in range(COUNT)]


def test_batches_of_other_columns_same_everywhere(executor, cut):
    rows = [{"a": n} if n % 2 else {"b": str(n), "a": n / 2} for n in range(COUNT)]
    ours = bf.map_batches(lambda table: table, bf.records(rows), executor=executor, chunk=cut)
    reference = bf.map_batches(lambda table: table, bf.records(rows), executor="serial", chunk=COUNT)
    assert observe(ours)._replace(schema=None) == observe(reference)._replace(schema=None)


def test_changed_record_same_everywhere(executor, cut):
    rows = [{"n": n} for n in range(COUNT)]
    ours = bf.map_records(changes_its_argument, bf.records(rows), executor=executor, chunk=cut)
    assert ours.values == [{"n": n + 1} for n in range(COUNT)]
    assert rows == [{"n": n} for n in range(COUNT)]


def test_changed_argument_same_everywhere(executor, cut):
    def bump(n: int, counter: np.ndarray) -> Any:
        try:
            counter += 1
        except ValueError as error:
            return str(error)
        return "changed"

    ours = bf.map_records(
        bump, bf.records(range(COUNT)), args={"counter": np.zeros(1000)}, executor=executor, chunk=cut
    )
    reference = bf.map_records(
        bump, bf.records(range(COUNT)), args={"counter": np.zeros(1000)}, executor="serial", chunk=COUNT
    )
    assert ours.values == reference.values


def test_one_object_for_every_record_same_everywhere(executor, cut):
    row: dict[str, Any] = {"inner": []}
    ends: list[int] = []

    def refill(n: int) -> dict[str, Any]:
        row["n"] = n
        row["inner"][:] = [n]
        return row

    def refill_list(n: int) -> list[int]:
        ends[:] = [n, -n]
        return ends

    ours = bf.map_records(refill, bf.records(range(COUNT)), executor=executor, chunk=cut)
    assert ours.values == [{"inner": [n], "n": n} for n in range(COUNT)]
    assert bf.map_records(refill_list, bf.records(range(COUNT)), executor=executor, chunk=cut).values == [
        [n, -n] for n in range(COUNT)
    ]


def test_stop_iteration_of_the_first_records_same_everywhere(executor, cut):
    def skips(n: int) -> int:
        if n in {0, 1, 5}:
            raise StopIteration
        return n

    ours = bf.map_records(skips, bf.records(range(COUNT)), executor=executor, chunk=cut)
    assert ours.values == [n for n in range(COUNT) if n not in {0, 1, 5}]
    assert ours.errors["record"].to_pylist() == [1, 2, 6]
