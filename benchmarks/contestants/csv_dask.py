"""Dask's dataframe, in processes: a CSV file as one block, for it cuts cells in two, into Parquet."""

import sys

from benchmarks.functions import CORES, receipt
from benchmarks.reporting import comparable, parquet_rows, report


def converted(frame):
    """Return the rows of one block."""
    import pandas as pd

    return pd.DataFrame([receipt(record) for record in frame.to_dict("records")])


if __name__ == "__main__":
    _, out, source = sys.argv[1:]
    import dask
    import dask.dataframe as dd

    with dask.config.set({"scheduler": "processes", "num_workers": CORES}):
        frame = dd.read_csv(source, blocksize=None, dtype=str, keep_default_na=False)
        meta = converted(frame.head(1))
        frame.map_partitions(converted, meta=meta).to_parquet(out, write_index=False)
    report(lambda: comparable(parquet_rows(out)))
