"""How long do many files of very unequal size take, of which the largest stands last?

40 gz files of JSON Lines, 250 MB before they are compressed; one holds 15 % of it. They go through a Python
function record by record, into Parquet. No contestant can cut a gz file. The limit is two processes that take the
largest first, written for just this job: no scheduler, no errors, no resuming.
"""

from __future__ import annotations

from benchmarks.harness import OUT, Contestant, Suite
from datasets import events_gz

BYTES = 250_000_000


def suite(scale: float) -> Suite:
    """Return the race over files, which are made before it starts."""
    files = tuple(map(str, events_gz(int(BYTES * scale))))
    args = ("json", OUT, *files)
    contestants = [
        Contestant("batchflow", "records_batchflow.py", args),
        Contestant("limit: largest first by hand", "records_pool.py", ("limit", OUT, *files)),
        Contestant("multiprocessing.Pool", "records_pool.py", ("pool", OUT, *files), target=0.75),
        Contestant("concurrent.futures", "records_pool.py", ("futures", OUT, *files), target=0.75),
        Contestant("joblib", "records_pool.py", ("joblib", OUT, *files), target=0.75, needs="joblib"),
        Contestant("mpire", "records_pool.py", ("mpire", OUT, *files), target=0.75, needs="mpire"),
        Contestant("GNU parallel", "records_pool.py", ("parallel", OUT, *files), target=0.75, needs="parallel"),
        Contestant("Dask, bag", "records_dask.py", args, target=0.75, needs="dask"),
        Contestant("Daft", "records_daft.py", args, target=0.75, needs="daft"),
        Contestant("Ray Data", "records_ray_data.py", args, target=0.2, needs="pandas"),
    ]
    return Suite(__doc__ or "", contestants)
