"""How close is one large file to what two processes written for just this job need?

250 MB of JSON Lines go through a Python function record by record, into Parquet. The limit is two
processes that take half of the file each, cut at a line: no scheduler, no errors, no resuming.
"""

from __future__ import annotations

from benchmarks.harness import OUT, Contestant, Suite
from datasets import events_jsonl

BYTES = 250_000_000


def suite(scale: float) -> Suite:
    """Return the race over one file, which is made before it starts."""
    args = (str(events_jsonl(int(BYTES * scale))), OUT)
    contestants = [
        Contestant("batchflow", "one_file_batchflow.py", args),
        Contestant("two processes by hand", "one_file_by_hand.py", args, target=1.0),
    ]
    return Suite(__doc__ or "", contestants)
