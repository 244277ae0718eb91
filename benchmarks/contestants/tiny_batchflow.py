"""Ours, many tiny records: squares of integers, as a list in memory."""

import sys

import batchflow as bf
from benchmarks.functions import CORES, square
from benchmarks.reporting import report

if __name__ == "__main__":
    numbers = bf.records(range(int(sys.argv[1])))
    values = bf.map_records(square, numbers, progress=False, limits=bf.Resources(cpus=CORES)).values
    report(lambda: values)
