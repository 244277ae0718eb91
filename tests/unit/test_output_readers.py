"""The output folder as other tools read it: exactly its rows, whatever is stored next to it."""

import glob

import dask.dataframe
import duckdb
import pandas
import polars
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import batchflow as bf

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other libraries, among each other

ROWS = [1.5, 0.75, 1.5, 0.75]


def reciprocal(n):
    return {"a": 1.5 / (n % 3)}


def keep_none(n):
    return None


def ours(read):
    return lambda pattern: bf.map_batches(lambda table: table, read(pattern), executor="serial").table


def sql(call, pattern):
    return duckdb.sql(f"select * from {call}('{pattern}')").pl()


READERS = {
    "parquet": {
        "pandas": lambda out: pandas.read_parquet(out),
        "pyarrow": lambda out: pq.read_table(out),
        "pyarrow dataset": lambda out: ds.dataset(out).to_table(),
        "polars scan": lambda out: polars.scan_parquet(out).collect(),
        "polars read": lambda out: polars.read_parquet(out),
        "polars **": lambda out: polars.read_parquet(f"{out}/**/*.parquet"),
        "duckdb *": lambda out: sql("read_parquet", f"{out}/*.parquet"),
        "duckdb **": lambda out: sql("read_parquet", f"{out}/**/*.parquet"),
        "dask": lambda out: dask.dataframe.read_parquet(out).compute(),
        "dask **": lambda out: dask.dataframe.read_parquet(f"{out}/**/*.parquet").compute(),
        "glob": lambda out: pa.concat_tables(map(pq.read_table, sorted(glob.glob(f"{out}/**/*", recursive=True)))),
        "ours": lambda out: ours(bf.read_parquet)(out),
        "ours **": lambda out: ours(bf.read_parquet)(f"{out}/**/*.parquet"),
    },
    "csv": {
        "pandas": lambda out: pandas.concat(map(pandas.read_csv, sorted(glob.glob(f"{out}/*")))),
        "pyarrow dataset": lambda out: ds.dataset(out, format="csv").to_table(),
        "polars": lambda out: polars.scan_csv(out).collect(),
        "duckdb **": lambda out: sql("read_csv", f"{out}/**/*.csv"),
        "dask": lambda out: dask.dataframe.read_csv(f"{out}/**/*.csv").compute(),
        "ours": lambda out: ours(bf.read_csv)(out),
    },
    "jsonl": {
        "pandas": lambda out: pandas.concat(
            pandas.read_json(path, lines=True) for path in sorted(glob.glob(f"{out}/*"))
        ),
        "pyarrow dataset": lambda out: ds.dataset(out, format="json").to_table(),
        "polars": lambda out: polars.scan_ndjson(out).collect(),
        "duckdb **": lambda out: sql("read_json", f"{out}/**/*.jsonl"),
        "dask": lambda out: dask.dataframe.read_json(f"{out}/**/*.jsonl", lines=True).compute(),
        "ours": lambda out: ours(bf.read_json)(out),
    },
    "arrow": {
        "pyarrow dataset": lambda out: ds.dataset(out, format="ipc").to_table(),
        "polars": lambda out: polars.scan_ipc(out).collect(),
    },
}
CASES = [(kind, name) for kind, readers in READERS.items() for name in readers]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Write an output with failures, and one without rows, in each format."""
    folder = tmp_path_factory.mktemp("outputs")
    for kind in READERS:
        bf.map_records(
            reciprocal,
            bf.records(range(6)),
            into=f"{folder}/{kind}/full/",
            format=kind,
            executor="serial",
            part_size=1,
            chunk=2,
        )
        bf.map_records(
            keep_none, bf.records(range(6)), into=f"{folder}/{kind}/empty/", format=kind, executor="serial"
        )
    return folder


def columns_of(table):
    return list(table.column_names if isinstance(table, pa.Table) else table.columns)


@pytest.mark.parametrize(("kind", "reader"), CASES)
def test_output_folder_read_by_others_holds_the_rows(outputs, kind, reader):
    table = READERS[kind][reader](f"{outputs}/{kind}/full")
    column = table["a"]
    assert sorted(column.to_pylist() if isinstance(table, pa.Table) else list(column)) == sorted(ROWS)
    assert columns_of(table) == ["a"]


@pytest.mark.parametrize(("kind", "reader"), [(kind, name) for kind, name in CASES if kind != "jsonl"])
def test_output_without_rows_read_by_others_is_empty(outputs, kind, reader):
    table = READERS[kind][reader](f"{outputs}/{kind}/empty")
    assert len(table) == 0
    assert columns_of(table) in (["value"], [])


@pytest.mark.parametrize("reader", ["dask", "duckdb **", "pandas", "ours"])
def test_json_lines_without_rows_read_by_others_are_empty(outputs, reader):
    assert len(READERS["jsonl"][reader](f"{outputs}/jsonl/empty")) == 0


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_folder_of_outputs_read_by_pattern_holds_the_rows(tmp_path, kind):
    for day in (1, 2):
        bf.map_records(
            reciprocal, bf.records(range(6)), into=f"{tmp_path}/day={day}/", format=kind, executor="serial"
        )
    pattern = f"{tmp_path}/**/*.{kind}"
    reads = {
        "parquet": [
            lambda: polars.read_parquet(pattern),
            lambda: sql("read_parquet", pattern),
            lambda: dask.dataframe.read_parquet(pattern).compute(),
        ],
        "jsonl": [lambda: polars.scan_ndjson(pattern).collect(), lambda: sql("read_json", pattern)],
    }
    for read in reads[kind]:
        assert sorted(read()["a"]) == sorted(ROWS * 2)


def test_error_table_is_read_by_others(outputs):
    file = f"{outputs}/parquet/.full_batchflow/errors.pq"
    assert list(pandas.read_parquet(file)["payload"]) == ["0", "3"]
    assert polars.read_parquet(file)["payload"].to_list() == ["0", "3"]
    assert sql("read_parquet", file)["payload"].to_list() == ["0", "3"]


@pytest.mark.parametrize("into", ["out/", "out.parquet", "out.csv", "out.jsonl"])
def test_output_without_rows_takes_later_rows(tmp_path, monkeypatch, into):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("1\n")
    big = lambda line: {"n": int(line)} if int(line) > 1 else None
    bf.map_records(big, bf.read_text("*.txt"), into=into, executor="serial")
    (tmp_path / "b.txt").write_text("2\n")
    result = bf.map_records(big, bf.read_text("*.txt"), into=into, executor="serial")
    assert result.table.to_pydict() == {"n": [2]}


@pytest.mark.parametrize("into", ["out/", "out.parquet", "out.csv"])
def test_output_of_failures_only_takes_retried_rows(tmp_path, monkeypatch, into):
    monkeypatch.chdir(tmp_path)
    source = bf.records(range(3))
    bf.map_records(lambda n: 1 / 0, source, into=into, executor="serial")
    job = bf.Job(lambda n: {"n": n}, source, into=into, executor="serial", version="2")
    assert job.retry_failed().table.to_pydict() == {"n": [0, 1, 2]}


def test_batches_without_rows_keep_their_columns(tmp_path):
    into = f"{tmp_path}/out/"
    bf.map_batches(lambda table: table.slice(0, 0), bf.records([{"a": 1, "b": "x"}]), into=into, executor="serial")
    assert pq.read_schema(f"{into}/part-00000.parquet").names == ["a", "b"]


@pytest.mark.parametrize("into", ["out/", "out.csv"])
def test_output_removed_without_metadata_is_made_again(tmp_path, monkeypatch, into):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        result = bf.map_records(lambda n: {"n": n}, bf.records(range(3)), into=into, executor="serial")
        assert result.table.to_pydict() == {"n": [0, 1, 2]}
        for path in [*tmp_path.glob("out/*"), *tmp_path.glob("out.csv")]:
            path.unlink()
        for path in tmp_path.glob("out"):
            path.rmdir()


def test_output_through_a_link_has_its_metadata_next_to_the_folder(tmp_path):
    (tmp_path / "disk/real").mkdir(parents=True)
    (tmp_path / "out").symlink_to("disk/real")
    bf.map_records(abs, bf.records([1]), into=f"{tmp_path}/out/", executor="serial")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "out"]
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == [".real_batchflow", "real"]


@pytest.mark.parametrize("into", ["/", "/proc/", "s3://bucket/", "s3://bucket"])
def test_output_without_a_place_for_metadata_is_refused(into):
    with pytest.raises(
        bf.errors.DestinationError, match=r"itself, as metadata is stored next to an output: use .*/output/"
    ):
        bf.Job(abs, bf.records([1]), into=into, executor="serial").plan()
