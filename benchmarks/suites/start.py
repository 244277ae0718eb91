"""How long does the smallest job take, from the start of Python to its end?

A script maps a trivial function over 1,000 integers; what is timed is the import of the library, the
start of two workers and their end. The limit is two processes by hand.
"""

from __future__ import annotations

from benchmarks.harness import Contestant, Suite

RECORDS = 1_000


def suite(scale: float) -> Suite:
    """Return the race; its size is part of the question, so it has no scale."""
    del scale
    args = ("square", str(RECORDS), "0")
    contestants = [
        Contestant("batchflow", "integers.py", ("batchflow", *args)),
        Contestant("limit: two processes by hand", "integers.py", ("limit", *args)),
        Contestant("multiprocessing.Pool", "integers.py", ("pool", *args)),
        Contestant("joblib", "integers.py", ("joblib", *args), target=0.8, needs="joblib"),
        Contestant("mpire", "integers.py", ("mpire", *args), target=1.2, needs="mpire"),
        Contestant("Dask, bag", "integers.py", ("dask", *args), needs="dask"),
        Contestant("Ray Data", "integers.py", ("ray_data", *args), target=0.06, needs="pandas"),
    ]
    return Suite(__doc__ or "", contestants)
