"""Time that tasks which do nothing take, of the driver's processor or all in all: ours, or plain Ray tasks."""

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
    clock = {"cpu": time.process_time, "wall": time.perf_counter}[sys.argv[3]]
    ray.init(address="local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    run(range(500))
    seconds = []
    for _ in range(3):
        began = clock()
        values = run(range(count))
        seconds.append(clock() - began)
    ray.shutdown()
    report(lambda: list(values), statistics.median(seconds))
