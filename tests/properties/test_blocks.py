"""However few records are decoded, called and converted at a time, the same comes out."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seen import seen

import batchflow as bf
from batchflow.io.sources import text
from batchflow.io.sources.base import ReleasableRecords
from batchflow.worker import record_task as records

KINDS = ("row", "none", "many", "raises", "misfit", "blank", "broken", "mutated")
"""What becomes of a line."""


def line(number, kind):
    return {"blank": "", "broken": "{"}.get(kind) or json.dumps(
        {"n": number, "kind": kind, "pad": "x" * (number % 7)}
    )


def work(record):
    number = record["n"]
    match record["kind"]:
        case "none":
            return None
        case "many":
            return ({"x": float(number + part)} for part in range(3))
        case "raises":
            raise ValueError(number)
        case "misfit":
            record["seen"] = True
            return {"x": {"of": number}}
        case "mutated":
            record.clear()
    return {"x": float(number)}


def outcome(path, into=None, **options):
    """Return what was given back and what failed, without when and where."""
    result = bf.map_records(work, bf.read_json(path), into=into, executor="serial", progress=False, **options)
    columns = ["start", "stop", "record", "payload", "phase", "error_type", "message"]
    return seen(result).values, result.errors.select(columns).to_pylist()


def numbered(kinds):
    return [line(number, kind) for number, kind in enumerate(kinds)]


@pytest.mark.parametrize("end", ["\n", ""])
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=30),
    st.integers(1, 400),
    st.integers(1, 400),
    st.integers(1, 999),
)
def test_sizes_of_blocks_change_nothing(tmp_path_factory, end, kinds, decoded, converted, chunk):
    folder = tmp_path_factory.mktemp("blocks")
    path = folder / "lines.jsonl"
    path.write_text("\n".join(numbered(kinds)) + end)
    held, written = outcome(path), outcome(path, f"{folder}/whole/")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(text, "DECODED_BYTES", decoded)
        patched.setattr(records, "CONVERTED_BYTES", converted)
        assert outcome(path) == outcome(path, chunk=f"{chunk}B") == held
        assert outcome(path, f"{folder}/blocks/") == written
        rows, errors = outcome(path, f"{folder}/chunks/", chunk=f"{chunk}B")
        assert rows == written[0]
        assert [bad["record"] for bad in errors] == [bad["record"] for bad in written[1]]


def test_what_failed_in_neighbouring_blocks_is_mended_in_its_place(tmp_path, monkeypatch):
    """Each line is a block of its own, and three of them are converted together."""
    kinds = ("row", "raises", "many", "misfit", "row", "broken", "mutated", "raises")
    path, out = tmp_path / "lines.jsonl", tmp_path / "out"
    path.write_text("\n".join(numbered(kinds)))
    monkeypatch.setattr(text, "DECODED_BYTES", 1)
    monkeypatch.setattr(records, "CONVERTED_BYTES", 100)
    job = bf.Job(
        fn=work, source=bf.read_json(path), into=f"{out}/", executor="serial", version="1", progress=False
    )
    result = job.run()
    assert seen(result).values == [{"x": value} for value in (0.0, 2.0, 3.0, 4.0, 4.0, 6.0)]
    assert result.errors["record"].to_pylist() == [2, 4, 6, 8]
    assert result.errors["phase"].to_pylist() == ["call", "convert", "read", "call"]
    assert "misfit" in result.errors["payload"][1].as_py()

    def mended(record):
        return {"x": -float(record["n"])}

    again = bf.Job(
        fn=mended, source=bf.read_json(path), into=f"{out}/", executor="serial", version="1", progress=False
    )
    assert seen(again.retry_failed()).values == [
        {"x": value} for value in (0.0, -1.0, 2.0, 3.0, 4.0, -3.0, 4.0, 6.0, -7.0)
    ]


@given(st.lists(st.integers(0, 99), max_size=20), st.data())
def test_records_are_the_same_once_they_are_let_go_of(numbers, data):
    made = []

    def decode(raw):
        made.append(raw)
        return json.loads(raw)

    rows = ReleasableRecords([b"[%d]" % number for number in numbers], decode)
    expected = [[number] for number in numbers]
    part = data.draw(st.slices(len(numbers)))
    for _ in range(2):
        assert (len(rows), list(rows), rows[part]) == (len(numbers), expected, expected[part])
        assert [rows[at] for at in range(len(numbers))] == expected
        rows.let_go()
    assert made[: len(numbers)] == rows._texts
    assert len(made) == len(numbers) + len(numbers) + len(expected[part]) + len(numbers)


@pytest.mark.parametrize("kind", ["files", "lines"])
def test_a_function_may_use_the_dict_that_it_returns_once_more_for_the_next_file(tmp_path, kind):
    """What it gave for one file is converted before it sees the next one."""
    for number in range(12):
        (tmp_path / f"{number:02}.jsonl").write_text(f"{number}")
    kept = {}

    def fill(record):
        kept["n"] = int(record.read_text()) if kind == "files" else record
        return kept

    source = bf.files(f"{tmp_path}/*.jsonl") if kind == "files" else bf.read_json(f"{tmp_path}/*.jsonl")
    chunk = 12 if kind == "files" else None
    result = bf.map_records(fill, source, executor="serial", chunk=chunk, progress=False)
    assert result.values == [{"n": number} for number in range(12)]
