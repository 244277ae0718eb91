"""joblib's default backend: squares of some integers, as a list."""

import sys

from joblib import Parallel, delayed

from benchmarks.functions import CORES, square
from benchmarks.reporting import report

if __name__ == "__main__":
    values = Parallel(n_jobs=CORES)(delayed(square)(number) for number in range(int(sys.argv[1])))
    report(lambda: values)
