"""Steps that keep on disk what they gave: a flow that failed in its last step resumes there."""

import json
from collections import Counter

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aborted import aborted

import batchflow as bf
from batchflow.testing import Script


def give(value, *_):
    return value


@pytest.fixture
def calls(tmp_path):
    """Count the calls of a function by its first argument, in all processes."""
    script = Script(tmp_path / "calls", {})
    return lambda fn: CountedCalls(script, fn)


class CountedCalls:
    def __init__(self, script, fn):
        self.script, self.fn = script, fn
        self.__name__ = fn.__name__

    def __call__(self, name, *args):
        self.script.play(name)
        return self.fn(name, *args)


def table_of(name, count=3):
    return pa.table({"name": [name] * count, "n": range(count)})


def run(folder, script, executor, last=give, number=1):
    """Run a flow whose last step may fail; returns what became of it, and how often each step was called."""
    counted = CountedCalls(script, give)
    flow = bf.Flow("kept", folder=folder / "cache")
    first = flow.step(counted, "first", cache=True, name="first")
    table = flow.step(CountedCalls(script, table_of), "table", number, cache=True, name="table")
    rows = flow.map_records(lambda row: {"n": row["n"]}, table, name="rows")
    both = flow.step(counted, "both", first, rows, cache=True, name="both")
    end = flow.step(last, [both, rows], name="end")
    done = flow.run(executor=executor, on_error="continue")
    return {step.name: step.state for step in done.steps}, done, end


def test_a_flow_that_failed_in_its_last_step_resumes_there(executor, tmp_path):
    script = Script(tmp_path / "calls", {})
    names = ("first", "table", "both")

    def fail(_):
        raise ValueError("no")

    states, _, _ = run(tmp_path, script, executor, fail)
    assert states == dict.fromkeys(["first", "table", "rows", "both"], "succeeded") | {"end": "failed"}
    states, done, end = run(tmp_path, script, executor)
    assert states == dict.fromkeys(names, "cached") | {"rows": "succeeded", "end": "succeeded"}
    assert [script.attempts(name) for name in names] == [1, 1, 1]
    value, rows = done[end].value
    assert (value, rows.to_pydict()) == ("both", {"n": [0]})
    states, done, end = run(tmp_path, script, executor, number=2)  # other arguments
    assert (states["first"], states["table"], states["both"]) == ("cached", "succeeded", "succeeded")
    assert done[end].value[1].num_rows == 2


def test_what_changes_the_key(tmp_path, calls):
    def state(fn, *args, given=1, **options):
        flow = bf.Flow("keys", folder=tmp_path)
        step = flow.step(fn, flow.step(give, given), *args, cache=True, name="step", **options)
        return flow.run(executor="serial", keep=[step])[step].state

    def other(*_):
        return "other"

    assert [state(give), state(give)] == ["succeeded", "cached"]
    assert [state(give, 1), state(give, 1)] == ["succeeded", "cached"]
    assert [state(give, 1, given=2), state(give, 1, given=2)] == ["succeeded", "cached"]
    assert [state(other, 1, given=2), state(other, 1, given=2)] == ["succeeded", "cached"]
    assert [state(other, {1, "a", None}), state(other, {None, "a", 1})] == ["succeeded", "cached"]


@pytest.mark.parametrize(
    "value",
    [
        table_of("a"),
        pd.DataFrame({"a": [1, 2]}),
        {"a": [1, None, 2.5, "é", {"b": True}]},
        [(1, 2)],
        "text",
        None,
        10**30,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_kept_is_what_is_given(executor, tmp_path, value):
    """The first time as later: a frame is a table, and a tuple a list."""
    given = []
    for _ in range(2):
        flow = bf.Flow("values", folder=tmp_path)
        step = flow.step(give, value, cache=True, name="value")
        after = flow.step(give, step, name="taken")
        done = flow.run(executor=executor, keep=True)
        given.append((done[step].value, done[after].value))
    expected = (
        pa.table({"a": [1, 2]}) if isinstance(value, pd.DataFrame) else [[1, 2]] if value == [(1, 2)] else value
    )
    assert given == [(expected, expected)] * 2


@pytest.mark.parametrize("value", [{1: 2}, {3, 4}, object(), [b"bytes"], {"a": float("nan")}], ids=repr)
def test_what_neither_a_table_nor_json_holds(executor, tmp_path, value):
    flow = bf.Flow(folder=tmp_path)
    flow.step(give, value, cache=True)
    [row] = aborted(flow, executor=executor).errors.to_pylist()
    assert (row["phase"], row["error_type"]) == ("write", "SchemaError")
    assert "what JSON holds" in row["message"]
    assert not list(tmp_path.rglob("*.new*"))


def test_a_file_of_ones_own(executor, tmp_path):
    def flow():
        flow = bf.Flow()
        table = flow.step(table_of, "a", into=tmp_path / "table.parquet")
        counts = flow.step(lambda table: {"rows": table.num_rows}, table, into=tmp_path / "sub" / "counts.json")
        return flow, table, counts

    for state in ("succeeded", "cached"):
        made, table, counts = flow()
        done = made.run(executor=executor)
        assert (done[table].state, done[counts].state, done[counts].value) == (state, state, {"rows": 3})
    assert pq.read_table(tmp_path / "table.parquet").equals(table_of("a"))
    assert json.loads((tmp_path / "sub" / "counts.json").read_text()) == {"rows": 3}


@pytest.mark.parametrize("damage", ["edit", "remove", "note", "no note"])
def test_what_was_changed_since_is_made_again(tmp_path, damage):
    def step():
        flow = bf.Flow()
        step = flow.step(give, "value", into=tmp_path / "x.json")
        return flow.run(executor="serial")[step]

    assert step().state == "succeeded"
    file, note = tmp_path / "x.json", tmp_path / ".x.json_batchflow.json"
    if damage == "edit":
        file.write_text('"other"')
    elif damage == "remove":
        file.unlink()
    elif damage == "note":
        note.write_text("{}")
    else:
        note.unlink()
    assert (step().state, file.read_text()) == ("succeeded", '"value"')
    again = step()
    assert (again.state, again.value, file.read_text()) == ("cached", "value", '"value"')


def test_of_what_cannot_be_told_apart_nothing_is_told_again(tmp_path):
    """Records of a generator: another run may have others."""
    states = Counter()
    for _ in range(2):
        flow = bf.Flow(folder=tmp_path)
        rows = flow.map_records(give, bf.records(iter([1, 2])))
        step = flow.step(lambda table: table.num_rows, rows, cache=True, name="step")
        states[flow.run(executor="serial")[step].state] += 1
    assert states == {"succeeded": 2}


def test_names_that_no_file_has(tmp_path):
    flow = bf.Flow("a/b: c", folder=tmp_path)
    steps = [flow.step(give, name, cache=True, name=name) for name in ("x/y", "x y", "x-y", "..", "né")]
    done = flow.run(executor="serial")
    assert [done[step].value for step in steps] == ["x/y", "x y", "x-y", "..", "né"]
    assert len({path.name for path in tmp_path.glob("[!.]*.json")}) == 5
    assert bf.Flow("a/b: c").folder.startswith(".batchflow/a-b-c-")


def test_a_file_that_holds_another_kind(tmp_path):
    flow = bf.Flow()
    flow.step(give, 1, into=tmp_path / "x.parquet", name="number")
    flow.step(table_of, "a", into=tmp_path / "x.json", name="table")
    done = flow.run(executor="serial", on_error="continue")
    assert [row["message"].partition(" cannot hold ")[2] for row in done.errors.to_pylist()] == [
        "an int: tables are kept as .arrow or .parquet, other values as .json",
        "a Table: tables are kept as .arrow or .parquet, other values as .json",
    ]
