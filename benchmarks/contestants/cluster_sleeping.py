"""Tasks that sleep, on a simulated cluster: ours, or plain Ray tasks in a window."""

import os
import sys
import time

import batchflow as bf
from batchflow.executors.ray.cluster import SETTINGS
from benchmarks.functions import windowed
from benchmarks.reporting import report

NODES = 3

for name, value in {"RAY_AUTH_MODE": "disabled", **SETTINGS}.items():
    os.environ.setdefault(name, value)


def sleep(seconds):
    """Return how long it slept, and which process it was."""
    time.sleep(seconds)
    return seconds, os.getpid()


def by_hand(naps, cpus):
    """Return what plain tasks give, twice as many at Ray as run side by side."""
    import ray

    return windowed(ray.remote(max_retries=0)(sleep), naps, 2 * cpus)


def ours(naps, executor):
    return bf.map_records(sleep, bf.records(naps), chunk=1, executor=executor, progress=False).values


if __name__ == "__main__":
    who, cpus, each, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(NODES):
        cluster.add_node(num_cpus=cpus // NODES)
    try:
        with bf.Ray(cluster.address, wait_for_nodes=60) as executor:
            run = (lambda naps: ours(naps, executor)) if who == "batchflow" else lambda naps: by_hand(naps, cpus)
            while executor.slots(bf.Resources(), bf.Resources()) < cpus:
                time.sleep(0.1)
            executor.start(cpus, bf.Resources())
            while len({process for _, process in run([seconds] * cpus)}) < cpus:
                pass  # until there is a worker for each, which takes a while on few cores
            began = time.perf_counter()
            done = run([seconds] * each * cpus)
            taken = time.perf_counter() - began
    finally:
        cluster.shutdown()
    report(lambda: [slept for slept, _ in done], taken)
