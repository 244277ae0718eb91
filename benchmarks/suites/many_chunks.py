"""What does a chunk cost when there are very many of them?

100,000 records, each a chunk of its own because that was asked for; the whole process is timed.
"""

from __future__ import annotations

from benchmarks.harness import Contestant, Suite
from benchmarks.suites.cluster import EMPTY

CHUNKS = 100_000
MOST = 0.06
"""Milliseconds that a chunk may take."""
_RAY = """
The same on Ray: plain remote tasks, 32 at a time, on 16 logical CPUs of this machine. Wall time of the call.
"""


def suites(scale: float) -> dict[str, Suite]:
    """Return a race on processes, and one on Ray."""
    count = str(max(100, int(CHUNKS * scale)))
    processes = [
        Contestant("batchflow", "many_chunks.py", ("batchflow", count), most=MOST),
        Contestant("Pool.imap, chunks of 1", "many_chunks.py", ("pool_imap", count)),
        Contestant("concurrent.futures", "many_chunks.py", ("futures", count)),
        Contestant("joblib, batches of 1", "many_chunks.py", ("joblib", count), needs="joblib"),
    ]
    empty = str(max(100, int(EMPTY * scale)))
    on_ray = [
        Contestant("batchflow", "cluster_cost.py", ("batchflow", empty, "wall")),
        Contestant("plain Ray tasks", "cluster_cost.py", ("ray", empty, "wall"), target=1.1),
    ]
    return {
        "many chunks": Suite(__doc__ or "", processes, "step", steps=int(count)),
        "many chunks: Ray": Suite(_RAY, on_ray, "step", steps=int(empty)),
    }
