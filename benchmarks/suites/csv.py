"""How long does a large CSV file take, of which many cells hold quotes and line breaks?

250 MB go through a Python function record by record, into Parquet. The limit is two processes with half of the
file each, cut by counting all quotes before that. Dask would cut cells in two, so it gets the file as one block,
and Ray Data takes it so by itself. Daft is not here: an empty cell and a cell without text are the same to it.
"""

from __future__ import annotations

from benchmarks.harness import OUT, Contestant, Suite
from datasets import sales_csv

BYTES = 250_000_000


def suite(scale: float) -> Suite:
    """Return the race over one file, which is made before it starts."""
    args = ("csv", OUT, str(sales_csv(int(BYTES * scale))))
    contestants = [
        Contestant("batchflow", "records_batchflow.py", args),
        Contestant("limit: two processes by hand", "csv_by_hand.py", args),
        Contestant("Dask, dataframe", "csv_dask.py", args, target=0.6, needs="pandas"),
        Contestant("Ray Data", "records_ray_data.py", args, needs="pandas"),
    ]
    return Suite(__doc__ or "", contestants)
