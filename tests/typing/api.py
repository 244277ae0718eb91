"""The public surface as users type it: never run, checked by mypy."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import pyarrow as pa

import batchflow as bf


def parse(row: dict[str, Any]) -> dict[str, Any] | None:
    return row or None


def spread(row: dict[str, Any]) -> Iterator[int]:
    yield from row.values()


def totals(table: pa.Table) -> pa.Table:
    return table


async def connect() -> dict[str, str]:
    return {}


async def fetch(url: str, client: dict[str, str]) -> str:
    if url not in client:
        raise bf.errors.RetryAfter(30)
    return client[url]


def use() -> None:
    result: bf.Result = bf.map_records(parse, bf.read_json("logs/**/*.jsonl.gz"), into="clean/")
    errors: pa.Table = result.errors
    report: bf.Report = result.report
    path: Path | str | None = result.path
    rows: int = report.rows_in + errors.num_rows + len(result)
    print(path, rows, result.raise_for_errors().values)
    result.save_report(Path("report.html"))

    bf.map_records(
        spread, bf.read_csv(["a.csv", Path("b.csv")], types={"n": int}), into=Path("x.csv"), max_errors=0.1
    )
    bf.map_batches(
        totals,
        bf.read_parquet("s3://bucket/sales/", columns=["a"]),
        combine=totals,
        limits=bf.Resources(cpus=8, memory="16GB"),
        per_task=bf.Resources(cpus=1, memory="2GB"),
        max_errors=0.001,
        executor=bf.Ray(address="auto"),
    )
    bf.map_records(fetch, bf.records(["a"]), setup=connect, concurrency=200, rate="50/s burst 10")
    bf.map_batches(totals, bf.read_parquet("a"), rate=0.5)
    tables: Iterator[pa.Table] = bf.stream_batches(totals, bf.records(range(10)), ordered=False)
    print(list(tables))

    with bf.Processes(workers=2) as warm:
        job = bf.Job(fn=len, source=bf.read_text("x.txt"), executor=warm)
        print(job.plan().explain(), job.run().values, list(job.stream()))


def flow() -> None:
    flow = bf.Flow("typed", folder=Path("cache"))
    step = flow.step(len, [1], name="one", retry=bf.Retry(2), timeout=1.5, per_task=bf.Resources(cpus=0))
    rows = flow.map_records(abs, [1, 2], after=[step], into=Path("x.parquet"), max_errors=0.1)
    flow.step(print, flow.allow_failed([step, rows], min_success=0.5), when=step, default=None, cache=True)
    run = flow.run(on_error="continue", executor=bf.Serial(), keep=[rows], only=step)
    assert_type(run.seconds, float)
    assert_type(run[step].name, str)
    assert_type(run["one"].attempts, int)
    assert_type(run.explain(), str)
    assert_type(flow.explain(), str)
