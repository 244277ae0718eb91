"""The standard library's pool with warm workers: only the second map is timed."""

import sys
import time
from multiprocessing import Pool

from benchmarks.functions import CORES, square
from benchmarks.reporting import report

if __name__ == "__main__":
    count, chunk = map(int, sys.argv[1:])
    with Pool(CORES) as pool:
        for _ in range(2):
            began = time.perf_counter()
            values = pool.map(square, range(count), chunksize=chunk)
            call = time.perf_counter() - began
    report(lambda: values, call)
