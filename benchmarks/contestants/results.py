"""Tables made by workers, back in the driver as one, by ours and by peers; only the call is timed."""

import sys
import time

from benchmarks.functions import CORES, made
from benchmarks.reporting import report


def batchflow(count):
    import batchflow as bf

    with bf.Processes(CORES) as warm:
        run = lambda numbers: (
            bf.map_batches(made_of, bf.records(numbers), chunk=1, executor=warm, progress=False).table
        )
        run(range(CORES))
        return timed(lambda: run(range(count)))


def made_of(table):
    """Return the table for the one number in another."""
    return made(table["value"][0].as_py())


def pool(count):
    from multiprocessing import Pool

    import pyarrow as pa

    with Pool(CORES) as workers:
        workers.map(made, range(CORES), chunksize=1)
        return timed(lambda: pa.concat_tables(workers.map(made, range(count), chunksize=1)))


def joblib(count):
    import pyarrow as pa
    from joblib import Parallel, delayed

    with Parallel(n_jobs=CORES) as parallel:
        parallel(delayed(made)(number) for number in range(CORES))
        return timed(lambda: pa.concat_tables(parallel(delayed(made)(number) for number in range(count))))


def limit(count):
    """One process that makes the tables and copies them once: what it costs at least."""
    import pyarrow as pa

    def work():
        tables = [made(number) for number in range(count)]
        return pa.concat_tables([pa.table({"x": pa.array(table["x"].to_numpy().copy())}) for table in tables])

    return timed(work)


def timed(work):
    """Return what a call returns, and the seconds that it took."""
    began = time.perf_counter()
    return work(), time.perf_counter() - began


WAYS = {way.__name__: way for way in (batchflow, pool, joblib, limit)}

if __name__ == "__main__":
    table, seconds = WAYS[sys.argv[1]](int(sys.argv[2]))
    report(lambda: [table.num_rows, table["x"][-1].as_py(), table["x"][table.num_rows // 2].as_py()], seconds)
