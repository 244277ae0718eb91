"""Input and output at an object store are never confused."""

import polars
import pyarrow.dataset as ds
import pytest
from crash import proved

import batchflow as bf
from batchflow import errors
from batchflow.io.stores import filesystem

pytestmark = pytest.mark.cluster


def same(row):
    return row


def run(paths, into=None, **options):
    return bf.map_records(
        same, bf.read_json(paths), into=into, format="jsonl" if into else None, executor="serial", **options
    )


def numbers(result):
    return sorted(row["a"] for row in result.values)


def write(bucket, name, *values):
    bucket.put(name, "".join(f'{{"a":{value}}}\n' for value in values).encode())


@pytest.mark.parametrize("source", ["data/", "data", "data/**/*.jsonl", "data/*.jsonl", "**/*.jsonl"])
@pytest.mark.parametrize("into", ["data/clean/", "data/clean.jsonl"])
def test_output_below_the_prefix_that_is_read_is_no_input(bucket, source, into):
    write(bucket, "data/a.jsonl", 1, 2)
    for before in (0, 2):
        result = run(f"{bucket.uri}/{source}", f"{bucket.uri}/{into}")
        assert (numbers(result), result.report.before) == ([1, 2], before)
    assert proved(f"{bucket.uri}/{into}".rstrip("/")) == []
    write(bucket, "data/b.jsonl", 3)
    assert numbers(run(f"{bucket.uri}/{source}", f"{bucket.uri}/{into}")) == [1, 2, 3]


@pytest.mark.parametrize("source", ["clean/", "clean", "clean/*", "clean/part-00000.jsonl", "cl*/*.jsonl"])
def test_output_that_is_read_is_refused_untouched(bucket, source):
    write(bucket, "in.jsonl", 1)
    run(f"{bucket.uri}/in.jsonl", f"{bucket.uri}/clean/")
    before = bucket.names()
    with pytest.raises(errors.DestinationError, match=r"is read from there; choose another output$"):
        run(f"{bucket.uri}/{source}", f"{bucket.uri}/clean/", fresh=True)
    assert bucket.names() == before


def test_prefix_that_begins_alike_is_another_place(bucket):
    write(bucket, "data/a.jsonl", 1)
    write(bucket, "data-2/a.jsonl", 2)
    assert numbers(run([f"{bucket.uri}/data", f"{bucket.uri}/data-2"], f"{bucket.uri}/dat/")) == [1, 2]


def test_outputs_of_other_jobs_are_read_if_they_are_named(bucket):
    write(bucket, "data/a.jsonl", 1)
    for into in ("data/one/", "data/two/", "days/1/", "days/2/"):
        assert numbers(run(f"{bucket.uri}/data/", f"{bucket.uri}/{into}")) == [1]
    with pytest.raises(errors.InputError, match="holds only outputs of other jobs"):
        run(f"{bucket.uri}/days/")
    assert numbers(run(f"{bucket.uri}/days/*/*.jsonl")) == [1, 1]
    assert numbers(run(f"{bucket.uri}/days/**")) == [1, 1]
    assert numbers(run(f"{bucket.uri}/data/one")) == [1]


def test_input_in_another_spelling_is_the_same(bucket):
    write(bucket, "dd/a.jsonl", 1)
    for spelling in ("dd/", "dd", "dd/*.jsonl", "dd/a.jsonl", "**/a.jsonl"):
        assert numbers(run(f"{bucket.uri}/{spelling}", f"{bucket.uri}/out/")) == [1]
    assert numbers(run([f"{bucket.uri}/dd/", f"{bucket.uri}/dd/*.jsonl"])) == [1]


def test_output_folder_holds_parts_only(bucket):
    bf.map_records(lambda n: {"a": 1 // n}, bf.records([0, 1]), into=f"{bucket.uri}/out/", executor="serial")
    system, path = filesystem(f"{bucket.uri}/out")
    assert ds.dataset(path, filesystem=system).to_table().to_pylist() == [{"a": 1}]
    assert bucket.names("out/") == ["out/part-00000.parquet"]
    assert polars.read_parquet(bucket.get("out/part-00000.parquet"))["a"].to_list() == [1]


@pytest.mark.parametrize("name", ["x [1].jsonl", "a*b.jsonl", "q?.jsonl"])
def test_odd_names_are_read_and_proved(bucket, name):
    write(bucket, f"in/{name}", 1)
    assert numbers(run(f"{bucket.uri}/in/", f"{bucket.uri}/out/")) == [1]
    assert proved(f"{bucket.uri}/out") == []
