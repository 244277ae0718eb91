"""Does a cluster finish in the time that its cores allow?

A Ray cluster is simulated: a head and three nodes of 16 logical CPUs each, all on this machine, so that
tasks sleep instead of working. Ten chunks of half a second for each CPU; their seconds over the CPUs is
the least that anybody can need. Workers are warm.
"""

from __future__ import annotations

from benchmarks.harness import Contestant, Suite

CPUS = 48
CHUNKS = 10
"""For each CPU."""
SECONDS = 0.5
"""Of a chunk."""
EFFICIENCY = 0.9
"""Share of the time in which all CPUs must be at work."""
EMPTY = 5_000
"""Chunks that do nothing."""
_COST = """
What does a chunk cost the driver on Ray?

Tasks that do nothing, 32 at a time, on 16 logical CPUs; what counts is the processor time of the driver,
its threads in Ray included. By hand it is a window of plain Ray tasks: submit, `ray.wait`, `ray.get`.
"""


def suites(scale: float) -> dict[str, Suite]:
    """Return a race against the clock, and one against plain tasks."""
    chunks = max(1, int(CHUNKS * scale))
    least = chunks * SECONDS
    args = (str(CPUS), str(chunks), str(SECONDS))
    sleeping = [
        Contestant("batchflow", "cluster_sleeping.py", ("batchflow", *args), most=least / EFFICIENCY),
        Contestant("plain Ray tasks", "cluster_sleeping.py", ("ray", *args)),
    ]
    empty = str(max(100, int(EMPTY * scale)))
    cost = [
        Contestant("batchflow", "cluster_cost.py", ("batchflow", empty, "cpu")),
        Contestant("plain Ray tasks", "cluster_cost.py", ("ray", empty, "cpu"), target=1.3),
    ]
    return {
        "cluster: sleeping": Suite(__doc__ or "", sleeping, "call"),
        "cluster: cost": Suite(_COST, cost, "step", steps=int(empty)),
    }
