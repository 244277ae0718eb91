"""The same everywhere: the same rows in the same order and the same errors on every executor."""

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from seen import seen

import batchflow as bf

COUNT = 60
ROWS = [{"n": n, "name": f"é{n}", "half": None if n % 7 == 0 else n / 2} for n in range(COUNT)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("parity")
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    lines[40] = '{"n": 40, damaged'
    (made / "a.jsonl").write_text("\n".join(lines[:35]) + "\n", encoding="utf-8")
    with gzip.open(made / "b.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(lines[35:]))
    with open(made / "a.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["n", "name", "half"])
        writer.writerows([row["n"], row["name"] + "\n,", row["half"]] for row in ROWS)
    (made / "a.txt").write_bytes(b"".join(b"%d\r\n" % n for n in range(COUNT)))
    (made / "b.txt").write_text("60\n61")
    pq.write_table(pa.Table.from_pylist(ROWS), made / "a.parquet", row_group_size=16)
    (made / "files").mkdir()
    for n in range(12):
        (made / f"files/{n:02}.bin").write_bytes(b"x" * n)
    return made


SOURCES = {
    "text": lambda folder: bf.read_text(str(folder / "*.txt")),
    "json": lambda folder: bf.read_json(str(folder / "*.jsonl*")),
    "csv": lambda folder: bf.read_csv(str(folder / "a.csv")),
    "parquet": lambda folder: bf.read_parquet(str(folder / "a.parquet")),
    "files": lambda folder: bf.files(str(folder / "files/*")),
    "list": lambda folder: bf.records(ROWS),
    "range": lambda folder: bf.records(range(COUNT)),
    "generator": lambda folder: bf.records(dict(row) for row in ROWS),
    "table": lambda folder: bf.records(pa.Table.from_pylist(ROWS)),
}


def number(record):
    """Return a number that tells records of any source apart."""
    if isinstance(record, dict):
        return int(record["n"])
    return record.size if hasattr(record, "size") else int(record)


def mapped(record):
    return {"n": number(record), "kind": type(record).__name__}


def filtered(record):
    return number(record) if number(record) % 3 else None


def flat(record):
    return ({"n": number(record), "k": k} for k in range(number(record) % 4))


def objects(record):
    return {number(record)}


def failing(record):
    n = number(record)
    if n % 5 == 2:
        raise KeyError(f"no {n}")
    if n % 11 == 3:
        raise SystemExit
    return str(n)


def late(record):
    """Raises in the middle of what it gives."""
    n = number(record)
    yield n
    if n % 6 == 1:
        raise ValueError(n)
    yield -n


def batch(table):
    return table.append_column("rows", pa.array([1] * table.num_rows))


def failing_batch(table):
    if any(number(row) in (4, 33) for row in _rows(table)):
        raise ValueError("a bad one")
    return table


def _rows(table):
    rows = table.to_pylist()
    if table.column_names == ["n", "name", "half"]:
        return rows
    return [len(row["content"]) if "content" in row else next(iter(row.values())) for row in rows]


def count(table):
    return pa.table({"n": [sum(table["n"].to_pylist())]})


RECORD_FUNCTIONS = {fn.__name__: fn for fn in (mapped, filtered, flat, objects, failing, late)}
CHUNKS = {"text": 40, "json": 200, "csv": 100, "parquet": 200, "files": 10}


def same(ours, reference, *, batches=False):
    assert seen(ours).values == seen(reference).values
    hidden = ["worker", "seconds", "attempts", *(["start", "stop"] if batches else [])]
    assert ours.errors.drop_columns(hidden).to_pylist() == reference.errors.drop_columns(hidden).to_pylist()
    assert ours.report.rows_in == reference.report.rows_in
    assert ours.report.rows_out == reference.report.rows_out
    assert ours.report.failed == reference.report.failed


@pytest.mark.parametrize("chunk", ["small", "automatic"])
@pytest.mark.parametrize("function", RECORD_FUNCTIONS)
@pytest.mark.parametrize("source", SOURCES)
def test_records(folder, remote, source, function, chunk):
    size = CHUNKS.get(source, 7)
    fn = RECORD_FUNCTIONS[function]
    reference = bf.map_records(fn, SOURCES[source](folder), executor="serial", chunk=size)
    ours = bf.map_records(fn, SOURCES[source](folder), executor=remote, chunk=size if chunk == "small" else None)
    same(ours, reference)
    if function != "objects":
        assert ours.table.to_pylist() == reference.table.to_pylist()
        assert ours.table.schema == reference.table.schema
    assert (reference.errors.num_rows > 0) == (function in ("failing", "late") or source == "json")


@pytest.mark.parametrize("chunk", ["small", "automatic"])
@pytest.mark.parametrize("fn", [batch, failing_batch], ids=lambda fn: fn.__name__)
@pytest.mark.parametrize("source", [source for source in SOURCES if source != "files"])
def test_batches(folder, remote, source, fn, chunk):
    size = CHUNKS.get(source, 7)
    reference = bf.map_batches(fn, SOURCES[source](folder), executor="serial", chunk=size)
    ours = bf.map_batches(fn, SOURCES[source](folder), executor=remote, chunk=size if chunk == "small" else None)
    same(ours, reference, batches=chunk == "automatic")
    assert ours.table.to_pylist() == reference.table.to_pylist()
    assert ours.table.schema == reference.table.schema


@pytest.mark.parametrize("source", SOURCES)
def test_combine(folder, remote, source):
    def run(executor, chunk):
        return bf.map_records(mapped, SOURCES[source](folder), combine=count, executor=executor, chunk=chunk)

    reference = run("serial", CHUNKS.get(source, 7))
    for chunk in (CHUNKS.get(source, 7), None):
        ours = run(remote, chunk)
        same_rows = seen(ours).table.to_pylist() == seen(reference).table.to_pylist()
        assert same_rows
        assert ours.errors.num_rows == reference.errors.num_rows


@pytest.mark.parametrize("into", ["out.parquet", "out/", "out.csv", "out.jsonl"])
def test_output_on_disk(folder, remote, tmp_path, into):
    def run(executor, where):
        (tmp_path / where).mkdir()
        return bf.map_records(
            mapped, SOURCES["json"](folder), into=tmp_path / where / into, executor=executor, chunk=100
        )

    ours, reference = run(remote, "ours"), run("serial", "serial")
    same(ours, reference)
    if into != "out/":
        assert (tmp_path / "ours" / into).read_bytes() == (tmp_path / "serial" / into).read_bytes()


@pytest.mark.parametrize("ordered", [True, False])
def test_streams(folder, remote, ordered):
    def run(executor):
        tables = bf.stream_batches(
            failing,
            SOURCES["text"](folder),
            per="record",
            ordered=ordered,
            max_errors=None,
            chunk=20,
            executor=executor,
        )
        rows = [value for table in tables for value in table["value"].to_pylist()]
        return rows if ordered else sorted(rows)

    assert run(remote) == run("serial")
