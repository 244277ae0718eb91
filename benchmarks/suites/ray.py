"""What does Ray cost that runs already, beside our own processes, and beside its own way to do the work?

The job of the suite ``one_file``, on a Ray of two CPUs that is warm: the job was done once before, on a small
file. Only the call is timed.
"""

from __future__ import annotations

from benchmarks.harness import OUT, Contestant, Suite
from benchmarks.suites.one_file import BYTES
from datasets import events_jsonl


def suite(scale: float) -> Suite:
    """Return the race over one file, which is made before it starts."""
    large, small = (str(events_jsonl(int(BYTES * scale * share))) for share in (1, 0.1))
    contestants = [
        Contestant("batchflow on Ray", "warm_ray.py", ("ray", OUT, small, large), needs="ray"),
        Contestant("batchflow on processes", "warm_ray.py", ("processes", OUT, small, large), target=1.2),
        Contestant("Ray Data", "warm_ray.py", ("ray_data", OUT, small, large), target=0.25, needs="pandas"),
    ]
    return Suite(__doc__ or "", contestants, "call")
