"""How close is one large file to what two processes written for just this job need, and how do peers compare?

250 MB of JSON Lines go through a Python function record by record, into Parquet. The limit is two processes that
take half of the file each, cut at a line: no scheduler, no errors, no resuming.
"""

from __future__ import annotations

from benchmarks.harness import OUT, Contestant, Suite
from datasets import events_jsonl

BYTES = 250_000_000


def suite(scale: float) -> Suite:
    """Return the race over one file, which is made before it starts."""
    file = str(events_jsonl(int(BYTES * scale)))
    args = ("json", OUT, file)
    contestants = [
        Contestant("batchflow", "records_batchflow.py", args),
        Contestant("limit: two processes by hand", "one_file_by_hand.py", (file, OUT), target=0.75),
        Contestant("Dask, bag", "records_dask.py", args, target=0.4, needs="dask"),
        Contestant("Daft", "records_daft.py", args, target=0.4, needs="daft"),
        Contestant("Ray Data", "records_ray_data.py", args, target=0.12, needs="pandas"),
    ]
    return Suite(__doc__ or "", contestants)
