"""Ours with warm workers: squares of integers, as a list in memory; only the second job is timed."""

import sys
import time

import batchflow as bf
from benchmarks.functions import CORES, square
from benchmarks.reporting import report

if __name__ == "__main__":
    count = int(sys.argv[1])
    with bf.Processes(CORES) as warm:
        for _ in range(2):
            began = time.perf_counter()
            values = bf.map_records(square, bf.records(range(count)), progress=False, executor=warm).values
            call = time.perf_counter() - began
    report(lambda: values, call)
