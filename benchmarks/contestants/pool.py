"""The standard library's pool: squares of integers, as a list, in chunks of a size chosen by hand."""

import sys
from multiprocessing import Pool

from benchmarks.functions import CORES, square
from benchmarks.reporting import report

if __name__ == "__main__":
    count, chunk = map(int, sys.argv[1:])
    with Pool(CORES) as pool:
        values = pool.map(square, range(count), chunksize=chunk)
    report(lambda: values)
