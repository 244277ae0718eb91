"""Ours: a graph of steps that do nothing, written and run, on warm workers."""

import sys

import batchflow as bf
from benchmarks.functions import CORES, GRAPHS
from benchmarks.reporting import median_call, report

EXECUTORS = {"serial": bf.Serial, "processes": lambda: bf.Processes(CORES)}


def value(graph, count, warm):
    """Write a flow, run it and return the value of its last step."""
    flow = bf.Flow()
    last = GRAPHS[graph](flow.step, count)
    return flow.run(executor=warm, progress=False)[last].value


if __name__ == "__main__":
    executor, graph, count, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with EXECUTORS[executor]() as warm:
        for _ in range(10):
            value("wide", 10, warm)
        seconds, given = median_call(lambda: value(graph, count, warm), rounds)
    report(lambda: [given], seconds)
