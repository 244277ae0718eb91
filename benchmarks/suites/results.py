"""What does it cost to get large results back from worker processes?

64 tables of 16 MB each, 1 GB in all, made by warm workers and put together in the driver; only the call is timed.
The limit is one process that makes them and copies each once.
"""

from __future__ import annotations

from benchmarks.harness import Contestant, Suite

TABLES = 64


def suite(scale: float) -> Suite:
    """Return the race."""
    count = str(max(2, int(TABLES * scale)))
    contestants = [
        Contestant("batchflow", "results.py", ("batchflow", count)),
        Contestant("limit: made and copied once", "results.py", ("limit", count)),
        Contestant("multiprocessing.Pool", "results.py", ("pool", count), target=0.5),
        Contestant("joblib", "results.py", ("joblib", count), target=0.5, needs="joblib"),
    ]
    return Suite(__doc__ or "", contestants, "call")
