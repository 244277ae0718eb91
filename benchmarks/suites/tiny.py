"""What does a record cost when the function costs next to nothing, start of Python and workers included?

1,000,000 integers are squared and the results held in memory as a list. `multiprocessing.Pool` has to be told
how many records make a chunk; it runs with several sizes, and the best of them is the one to beat. The limit is
two processes by hand, which send their half back through a pipe.
"""

from __future__ import annotations

from benchmarks.harness import Contestant, Suite

RECORDS = 1_000_000
CHUNKS = (1_000, 10_000, 50_000, 250_000)


def suite(scale: float) -> Suite:
    """Return the race: ours, and the Pool with every size of chunk."""
    job = ("square", str(int(RECORDS * scale)))
    pools = [
        Contestant(f"Pool, chunks of {chunk:,}", "integers.py", ("pool", *job, str(chunk)), target=1.0)
        for chunk in CHUNKS
    ]
    contestants = [
        Contestant("batchflow", "integers.py", ("batchflow", *job, "0")),
        Contestant("limit: two processes by hand", "integers.py", ("limit", *job, "0")),
        *pools,
        Contestant("joblib", "integers.py", ("joblib", *job, "0"), target=0.1, needs="joblib"),
        Contestant("mpire", "integers.py", ("mpire", *job, "0"), target=0.1, needs="mpire"),
        Contestant("Dask, bag", "integers.py", ("dask", *job, "0"), needs="dask"),
    ]
    return Suite(__doc__ or "", contestants)
