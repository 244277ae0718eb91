"""What does a step of a flow cost when its function does nothing?

A graph is written and run with warm workers, from its first line to the value of its last step. Beside
it stands Dask, which gets the graph as a plain dict, because that costs it the least; as one writes it
with `dask.delayed` it is shown, too. What the targets compare differs in kind: Dask's threads hand on
the objects themselves, in one process that dies with any step; `Serial` gives each step a copy of its
own, and each step of `Processes` and of Dask's cluster goes to another process and back.
"""

from __future__ import annotations

from benchmarks.harness import Contestant, Suite

GRAPHS = {
    "diamond": (__doc__ or "", 4, 501),
    "chain": ("The same for a chain of steps, so that nothing runs side by side.", 1_000, 3),
    "wide": ("The same for steps that take nothing of each other, and one that counts them.", 10_000, 1),
}
"""Question, steps, and calls in one process, whose median counts: of a graph of four, enough to take 0.2 s, since
a machine that is shared has slow phases of some tenths of a second."""
SERIAL, PROCESSES = 0.3, 1.0
"""Milliseconds that one step may take."""


def suites(scale: float) -> dict[str, Suite]:
    """Return a race for each graph; the best of Dask's two real schedulers is the one to beat."""
    return {f"flow: {graph}": _suite(graph, *race, scale) for graph, race in GRAPHS.items()}


def _suite(graph: str, question: str, steps: int, rounds: int, scale: float) -> Suite:
    if graph != "diamond":
        steps = max(1, int(steps * scale))
    args = (graph, str(steps), str(rounds))
    contestants = [
        Contestant("Serial", "flow_batchflow.py", ("serial", *args), most=SERIAL),
        Contestant("Processes", "flow_batchflow.py", ("processes", *args), most=PROCESSES),
        Contestant("Dask, threads", "flow_dask.py", ("dict", "threads", *args), 1.0, "dask"),
        Contestant("Dask, cluster", "flow_dask.py", ("dict", "distributed", *args), 1.0, "distributed"),
        Contestant("Dask, synchronous", "flow_dask.py", ("dict", "synchronous", *args), needs="dask"),
        Contestant("dask.delayed, threads", "flow_dask.py", ("delayed", "threads", *args), needs="dask"),
    ]
    return Suite(question, contestants, "step", ours=2, steps=steps + (graph == "wide"))
