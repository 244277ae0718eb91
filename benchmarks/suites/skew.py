"""What if the last records take a thousand times as long as the first?

4,000 integers, of which the first costs some 10 microseconds of computing and the last 10 milliseconds. The limit
is two processes of which each takes every second number: a cut that only who knows the costs can make.
"""

from __future__ import annotations

from benchmarks.functions import BURNS
from benchmarks.harness import Contestant, Suite

_IDLE = """
What share of the workers' time is idle at the end of the same job, in percent?

From the first task's begin to the last one's end: what other workers wait for that last one.
"""


def suites(scale: float) -> dict[str, Suite]:
    """Return the race, and what ours leaves idle at the end."""
    idle = Contestant("batchflow", "skew_idle.py", ("burn", str(BURNS)), most=3.0)
    return {"skew": suite(scale), "skew: idle": Suite(_IDLE, [idle], measure="percent")}


def suite(scale: float) -> Suite:
    """Return the race; the costs are part of the question, so it has no scale."""
    del scale
    job = ("burn", str(BURNS))
    peers = [
        ("multiprocessing.Pool", "pool", None),
        ("Pool.imap, chunks of 1", "pool_imap", None),
        ("concurrent.futures", "futures", None),
        ("joblib", "joblib", "joblib"),
        ("mpire", "mpire", "mpire"),
        ("Dask, bag", "dask", "dask"),
    ]
    contestants = [
        Contestant("batchflow", "integers.py", ("batchflow", *job, "0")),
        Contestant("limit: two processes by hand", "integers.py", ("limit", *job, "0")),
        *(Contestant(name, "integers.py", (way, *job, "0"), 0.9, needs) for name, way, needs in peers),
    ]
    return Suite(__doc__ or "", contestants)
