"""Dask: a graph of steps that do nothing, written and computed, on warm threads or a warm cluster."""

import sys
from contextlib import nullcontext
from itertools import count as numbers

import dask
from dask import delayed

from benchmarks.functions import CORES, GRAPHS
from benchmarks.reporting import median_call, report

NUMBERS = numbers()
"""No two steps have one name, or a cluster might not do the second one."""


def cluster():
    """Start as many processes as all have, with a thread each, which nobody else can reach."""
    from distributed import Client, LocalCluster

    return Client(
        LocalCluster(
            n_workers=CORES,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            host="127.0.0.1",
            worker_dashboard_address=None,
        )
    )


def by_delayed(graph, count, get):
    """Compute a graph as most people write it; each step has a name of its own, as ours has."""
    del get  # `compute` finds the scheduler by itself
    return GRAPHS[graph](lambda fn, *args: delayed(fn, pure=False)(*args), count).compute()


def by_dict(graph, count, get):
    """Compute a graph that is a plain dict, which takes Dask less time than anything else."""
    steps = {}

    def step(fn, *args):
        name = f"{fn.__name__}-{next(NUMBERS)}"
        steps[name] = (fn, *args)
        return name

    return get(steps, GRAPHS[graph](step, count))


if __name__ == "__main__":
    form, scheduler, graph, count, rounds = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
    dask.config.set({"scheduler": scheduler, "num_workers": CORES})
    value = {"delayed": by_delayed, "dict": by_dict}[form]
    with cluster() if scheduler == "distributed" else nullcontext() as client:
        get = client.get if client else dask.base.get_scheduler(scheduler=scheduler)
        for _ in range(10):
            value("wide", 10, get)
        seconds, given = median_call(lambda: value(graph, count, get), rounds)
    report(lambda: [given], seconds)
