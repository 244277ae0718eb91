"""Processor time that the driver needs for tasks that do nothing: ours, or plain Ray tasks in a window."""

import os
import statistics
import sys
import time

import batchflow as bf
from batchflow.executors.ray.cluster import SETTINGS
from benchmarks.functions import windowed
from benchmarks.reporting import report

CPUS = 16

for name, value in {"RAY_AUTH_MODE": "disabled", **SETTINGS}.items():
    os.environ.setdefault(name, value)


def same(n):
    return n


def by_hand(numbers):
    """Return what plain tasks give, twice as many at Ray as run side by side."""
    import ray

    return windowed(ray.remote(max_retries=0)(same), numbers, 2 * CPUS)


def ours(numbers):
    return bf.map_records(same, bf.records(numbers), chunk=1, executor="ray", progress=False).values


if __name__ == "__main__":
    import ray

    run, count = {"batchflow": ours, "ray": by_hand}[sys.argv[1]], int(sys.argv[2])
    ray.init(
        address="local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    run(range(500))
    seconds = []
    for _ in range(3):
        began = time.process_time()
        values = run(range(count))
        seconds.append(time.process_time() - began)
    ray.shutdown()
    report(lambda: list(values), statistics.median(seconds))
