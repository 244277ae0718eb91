"""What does a record cost when the function costs next to nothing and the workers are there already?

1,000,000 integers are squared and the results held in memory as a list; only the call is timed.
`multiprocessing.Pool` has to be told how many records make a chunk; it runs with several sizes, and
the best of them is the one to beat.
"""

from __future__ import annotations

from benchmarks.harness import Contestant, Suite
from benchmarks.suites.tiny import CHUNKS, RECORDS


def suite(scale: float) -> Suite:
    """Return the race: ours, and the Pool with every size of chunk."""
    records = str(int(RECORDS * scale))
    pools = [
        Contestant(f"Pool, chunks of {chunk:,}", "warm_pool.py", (records, str(chunk)), target=1.0)
        for chunk in CHUNKS
    ]
    return Suite(__doc__ or "", [Contestant("batchflow", "warm_batchflow.py", (records,)), *pools], "call")
