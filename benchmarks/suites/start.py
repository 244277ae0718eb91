"""How long does the smallest job take, from the start of Python to its end?

A script maps a trivial function over 1,000 integers; what is timed is the import of the library, the
start of two workers and their end.
"""

from __future__ import annotations

from benchmarks.harness import Contestant, Suite

RECORDS = 1_000


def suite(scale: float) -> Suite:
    """Return the race; its size is part of the question, so it has no scale."""
    del scale
    args = (str(RECORDS),)
    contestants = [
        Contestant("batchflow", "start_batchflow.py", args),
        Contestant("joblib", "start_joblib.py", args, target=1.0, needs="joblib"),
        Contestant("mpire", "start_mpire.py", args, needs="mpire"),
        Contestant("multiprocessing.Pool", "pool.py", (*args, "250")),
    ]
    return Suite(__doc__ or "", contestants)
