"""Ours: what share of the workers' time, in percent, was idle at the end, since others still worked."""

import sys

import batchflow as bf
from batchflow.events import TaskEnded
from benchmarks.functions import CORES, FUNCTIONS
from benchmarks.reporting import report

if __name__ == "__main__":
    function, count = sys.argv[1], int(sys.argv[2])
    begins, ends = [], dict.fromkeys(range(CORES), 0.0)

    def note(event):
        if isinstance(event, TaskEnded):
            begins.append(event.stats.started)
            ends[event.stats.worker] = max(ends.get(event.stats.worker, 0.0), begins[-1] + event.stats.seconds)

    source, limits = bf.records(range(count)), bf.Resources(cpus=CORES)
    values = bf.Job(FUNCTIONS[function], source, limits=limits, progress=False, listeners=[note]).run().values
    last = [end for end in ends.values() if end]
    idle = sum(max(last) - end for end in last) + (CORES - len(last)) * (max(last) - min(begins))
    report(lambda: values, 100 * idle / (CORES * (max(last) - min(begins))))
