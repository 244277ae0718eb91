"""Daft: records through a function of each, into Parquet."""

import os
import sys

os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("DAFT_PROGRESS_BAR", "0")

from benchmarks.functions import RECORDS
from benchmarks.reporting import comparable, parquet_rows, report

if __name__ == "__main__":
    kind, out, *sources = sys.argv[1:]
    import daft
    from daft import DataType as T

    EVENT = T.struct(
        {
            "id": T.string(),
            "time": T.timestamp("us", "UTC"),
            "weekday": T.int64(),
            "kind": T.string(),
            "country": T.string(),
            "customer": T.string(),
            "revenue": T.float64(),
            "coupon": T.string(),
            "tags": T.int64(),
        }
    )
    read = {"json": daft.read_json, "csv": daft.read_csv}[kind]
    frame = read(sources, schema={"time": T.string()} if kind == "json" else {})  # it takes them for times
    names = frame.column_names

    @daft.func(return_dtype=EVENT, use_process=True)
    def made(*values):
        return RECORDS[kind](dict(zip(names, values, strict=True)))

    made_of = made(*(daft.col(name) for name in names)).alias("row")
    frame.select(made_of).select(daft.functions.unnest(daft.col("row"))).write_parquet(out)
    report(lambda: comparable(parquet_rows(out)))
