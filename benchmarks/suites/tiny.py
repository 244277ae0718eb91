"""What does a record cost when the function costs next to nothing, start of Python and workers included?

1,000,000 integers are squared and the results held in memory as a list. `multiprocessing.Pool` has to be told
how many records make a chunk; it runs with several sizes, and the best of them is the one to beat.
"""

from __future__ import annotations

from benchmarks.harness import Contestant, Suite

RECORDS = 1_000_000
CHUNKS = (1_000, 10_000, 50_000, 250_000)


def suite(scale: float) -> Suite:
    """Return the race: ours, and the Pool with every size of chunk."""
    records = str(int(RECORDS * scale))
    pools = [
        Contestant(f"Pool, chunks of {chunk:,}", "pool.py", (records, str(chunk)), target=1.0)
        for chunk in CHUNKS
    ]
    return Suite(__doc__ or "", [Contestant("batchflow", "tiny_batchflow.py", (records,)), *pools])
