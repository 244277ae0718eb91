"""Parquet files through a function of each batch, and a grouped sum of what it gives, by ours and by peers."""

import os
import sys

from benchmarks.functions import CORES, calibrated, summed
from benchmarks.reporting import report

COLUMNS = ["sensor", "value", "quality"]


def batchflow(files):
    import batchflow as bf

    source = bf.read_parquet(files, columns=COLUMNS)
    result = bf.map_batches(calibrated, source, combine=summed, limits=bf.Resources(cpus=CORES), progress=False)
    return result.table


def limit(files):
    """Each process takes every second file: nothing else."""
    from multiprocessing import Pipe, Process

    import pyarrow as pa
    import pyarrow.parquet as pq

    def work(mine, to):
        parts = [summed(calibrated(batch)) for file in mine for batch in batches(file)]
        to.send(summed(pa.concat_tables(parts)))

    def batches(file):
        opened = pq.ParquetFile(file)
        for group in range(opened.num_row_groups):
            yield opened.read_row_group(group, COLUMNS, use_threads=False)

    ends = []
    for at in range(CORES):
        here, there = Pipe(duplex=False)
        process = Process(target=work, args=(files[at::CORES], there))
        process.start()
        ends.append((here, process))
    parts = [here.recv() for here, _ in ends]
    for _, process in ends:
        process.join()
    return summed(pa.concat_tables(parts))


def polars(files):
    os.environ["POLARS_MAX_THREADS"] = str(CORES)
    import polars as pl

    good = pl.scan_parquet(files).filter(pl.col("quality") % 16 != 0)
    value = pl.col("value").cast(pl.Int64) * 9 // 5 + 320
    return good.group_by("sensor").agg(value.sum(), pl.len().alias("count")).collect(engine="streaming").to_arrow()


def duckdb(files):
    import duckdb

    duckdb.execute(f"SET threads = {CORES}")
    query = (
        "SELECT sensor, sum((value::BIGINT * 9 - ((value::BIGINT * 9) % 5 + 5) % 5) // 5 + 320)::BIGINT AS value, "
        "count(*) AS count FROM read_parquet($files) WHERE quality % 16 != 0 GROUP BY sensor"
    )
    return duckdb.execute(query, {"files": files}).to_arrow_table()


def daft(files):
    os.environ |= {"DAFT_ANALYTICS_ENABLED": "0", "DO_NOT_TRACK": "true", "DAFT_PROGRESS_BAR": "0"}
    import daft
    from daft import col

    good = daft.read_parquet(files).where(col("quality") % 16 != 0)
    nine = col("value").cast(daft.DataType.int64()) * 9
    value = ((nine - ((nine % 5) + 5) % 5) // 5 + 320).cast(daft.DataType.int64())
    sums = good.select(col("sensor"), value.alias("value")).groupby("sensor")
    return sums.agg(col("value").sum(), col("value").count().alias("count")).to_arrow()


def ray_data(files):
    import pyarrow as pa
    import ray

    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    ray.init("local", num_cpus=CORES, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    data = ray.data.read_parquet(files, columns=COLUMNS)
    parts = data.map_batches(lambda batch: summed(calibrated(batch)), batch_format="pyarrow", batch_size=None)
    table = summed(pa.concat_tables(ray.get(parts.to_arrow_refs())))
    ray.shutdown()
    return table


WAYS = {way.__name__: way for way in (batchflow, limit, polars, duckdb, daft, ray_data)}

if __name__ == "__main__":
    way, *files = sys.argv[1:]
    table = WAYS[way](files).select(["sensor", "value", "count"]).sort_by("sensor")
    report(lambda: ({name: int(value) for name, value in row.items()} for row in table.to_pylist()))
