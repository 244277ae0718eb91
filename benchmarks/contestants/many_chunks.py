"""Very many chunks of one record each, with warm workers where they can be had; the call is timed."""

import sys
import time

from benchmarks.contestants.integers import WAYS
from benchmarks.functions import square
from benchmarks.reporting import report

if __name__ == "__main__":
    way, count = sys.argv[1], int(sys.argv[2])
    WAYS[way](square, 100, 1)
    began = time.perf_counter()
    values = WAYS[way](square, count, 1)
    taken = time.perf_counter() - began
    report(lambda: values, taken)
