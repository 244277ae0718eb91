"""Dask's bag, in processes: records through a function of each, into Parquet."""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.functions import CORES, RECORDS
from benchmarks.reporting import comparable, parquet_rows, report

BLOCK = 16 << 20
"""Bytes of a partition of a file that is not compressed."""


def write(rows, out, number):
    """Write one partition."""
    rows = list(rows)
    if rows:
        pq.write_table(pa.Table.from_pylist(rows), f"{out}/part-{number:06}.parquet")
    return [len(rows)]


if __name__ == "__main__":
    kind, out, *sources = sys.argv[1:]
    import dask
    import dask.bag as db

    Path(out).mkdir()
    block = None if sources[0].endswith(".gz") else BLOCK
    text = db.read_text(sources, blocksize=block)
    rows = text.map(json.loads).map(RECORDS[kind])
    parts = [dask.delayed(write)(part, out, at) for at, part in enumerate(rows.to_delayed())]
    dask.compute(*parts, scheduler="processes", num_workers=CORES)
    report(lambda: comparable(parquet_rows(out)))
