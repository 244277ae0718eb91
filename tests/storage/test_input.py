"""Inputs on an object store: ten thousand keys, whatever their names, on every executor."""

import gzip

import pytest

import batchflow as bf
from batchflow.io.sources.listing import list_inputs
from batchflow.io.sources.paths import as_paths

pytestmark = pytest.mark.cluster

NAMES = ["a b.txt", "a+b.txt", "50%.txt", "50%41.txt", "日本 ü.txt", "it's.txt", "a&b=c.txt", "#x.txt", "~.txt"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_what_they_are(bucket, name):
    bucket.put(f"in/{name}", b"content\n")
    for path in (f"in/{name}", "in/", "in/**", "in/**/*.txt"):
        (item,) = list_inputs(as_paths(f"{bucket.uri}/{path}")).inputs
        assert item.uri == f"{bucket.uri}/in/{name}"
        assert bf.map_records(str, bf.read_text(item.uri), executor="serial").values == ["content"]


def test_ten_thousand_objects(bucket):
    from moto.s3.models import s3_backends

    store = s3_backends["123456789012"]["aws"]
    for n in range(10_000):
        store.put_object(bucket.name, f"in/{n % 7}/{n:05d} +%.txt", b"%d\n" % n if n % 10 else b"")
    bucket.put("in/empty/", b"")
    result = bf.map_records(
        lambda file: {"n": int(file.uri[-12:-7]), "size": file.size},
        bf.files(f"{bucket.uri}/in/**/*.txt"),
        into=f"{bucket.uri}/out/",
        executor="processes",
    )
    assert result.report.rows_in == 10_000
    rows = result.table.sort_by("n").to_pylist()
    assert rows == [{"n": n, "size": len(f"{n}\n") if n % 10 else 0} for n in range(10_000)]


def test_folders_and_empty_objects(bucket):
    for key in ("in/", "in/empty/", "in/a.txt", "in/none.txt", "in/_x/b.txt", "in/.y"):
        bucket.put(key, b"1\n" if key.endswith("a.txt") else b"")
    assert [item.uri.rpartition("/")[2] for item in list_inputs((f"{bucket.uri}/in",)).inputs] == [
        "a.txt",
        "none.txt",
    ]
    assert bf.map_records(str, bf.read_text(f"{bucket.uri}/in"), executor="serial").values == ["1"]


def test_an_object_looked_at_alone_is_the_one_in_the_list(bucket):
    bucket.put("in/a.txt", b"1\n")
    assert (
        list_inputs((f"{bucket.uri}/in/a.txt",))
        == list_inputs((f"{bucket.uri}/in/",))
        == list_inputs((f"{bucket.uri}/in/*.txt",))
    )


def test_every_reader_on_every_executor(bucket, executor):
    bucket.put("in/a.jsonl", b'{"n":1}\n{"n":2}\n')
    bucket.put("in/b.csv", b"n\n3\n4\n")
    bucket.put("in/c.txt.gz", gzip.compress(b"5\n6\n"))
    bf.map_records(lambda n: {"n": n}, bf.records([7, 8]), into=f"{bucket.uri}/in/d.parquet", executor="serial")
    sources = [
        bf.read_json(f"{bucket.uri}/in/a.jsonl"),
        bf.read_csv(f"{bucket.uri}/in/b.csv"),
        bf.read_parquet(f"{bucket.uri}/in/*.parquet"),
    ]
    found = [bf.map_records(lambda row: row["n"], source, executor=executor).values for source in sources]
    assert found == [[1, 2], [3, 4], [7, 8]]
    assert bf.map_records(int, bf.read_text(f"{bucket.uri}/in/c.txt.gz"), executor=executor).values == [5, 6]

    def read(file):
        with file.open() as stream:
            return [file.size, file.read_text(), stream.read(3).decode()]

    assert bf.map_records(read, bf.files(f"{bucket.uri}/in/b.csv"), executor=executor).values == [
        [6, "n\n3\n4\n", "n\n3"]
    ]


def test_an_object_that_is_gone_or_refused_is_a_failure_of_its_own(bucket, server):
    for n in range(3):
        bucket.put(f"in/{n}.txt", b"%d\n" % n)
    server.refuses = lambda method, path, query: method == "GET" and path.endswith("/1.txt")
    result = bf.map_records(int, bf.read_text(f"{bucket.uri}/in/"), executor="serial")
    assert result.values == [0, 2]
    assert result.errors.select(["source", "phase"]).to_pylist() == [
        {"source": f"{bucket.uri}/in/1.txt", "phase": "read"}
    ]


def test_an_object_that_was_replaced_is_refused(bucket):
    bucket.put("in/a.txt", b"1\n")
    source, into = bf.read_text(f"{bucket.uri}/in/"), f"{bucket.uri}/out/"
    bf.map_records(int, source, into=into, executor="serial")
    bucket.put("in/a.txt", b"10\n")
    with pytest.raises(bf.errors.ChangedError, match=r"in/a\.txt has changed since .*size 2 then, 3 now"):
        bf.map_records(int, source, into=into, executor="serial")
