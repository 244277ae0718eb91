"""mpire's pool: squares of some integers, as a list."""

import sys

from mpire import WorkerPool

from benchmarks.functions import CORES, square
from benchmarks.reporting import report

if __name__ == "__main__":
    with WorkerPool(n_jobs=CORES) as pool:
        values = pool.map(square, range(int(sys.argv[1])))
    report(lambda: values)
