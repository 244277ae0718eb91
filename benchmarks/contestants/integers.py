"""A function of each of many integers, as a list, by ours and by all peers; each imports what it needs itself."""

import os
import sys

from benchmarks.functions import CORES, FUNCTIONS
from benchmarks.reporting import report


def batchflow(fn, count, chunk):
    import batchflow as bf

    limits = bf.Resources(cpus=CORES)
    return bf.map_records(fn, bf.records(range(count)), chunk=chunk, progress=False, limits=limits).values


def pool(fn, count, chunk):
    from multiprocessing import Pool

    with Pool(CORES) as workers:
        return workers.map(fn, range(count), chunksize=chunk)


def pool_imap(fn, count, chunk):
    from multiprocessing import Pool

    with Pool(CORES) as workers:
        return list(workers.imap(fn, range(count), chunksize=chunk or 1))


def futures(fn, count, chunk):
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(CORES) as workers:
        return list(workers.map(fn, range(count), chunksize=chunk or 1))


def joblib(fn, count, chunk):
    from joblib import Parallel, delayed

    return Parallel(n_jobs=CORES, batch_size=chunk or "auto")(delayed(fn)(number) for number in range(count))


def mpire(fn, count, chunk):
    from mpire import WorkerPool

    with WorkerPool(n_jobs=CORES) as workers:
        return workers.map(fn, range(count), chunk_size=chunk)


def dask(fn, count, chunk):
    import dask.bag as db

    bag = db.from_sequence(range(count), partition_size=chunk).map(fn)
    return bag.compute(scheduler="processes", num_workers=CORES)


def ray_data(fn, count, chunk):
    import ray

    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    ray.init("local", num_cpus=CORES, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.range(count).map(lambda row: {"value": fn(row["id"])}).take_all()
    ray.shutdown()
    return [row["value"] for row in rows]


def limit(fn, count, chunk):
    """One process for each core with every second number, or so: nothing else."""
    from multiprocessing import Pipe, Process

    def work(numbers, to):
        to.send([fn(number) for number in numbers])

    shares = [range(at, count, CORES) for at in range(CORES)]
    values = [None] * count
    ends = []
    for share in shares:
        here, there = Pipe(duplex=False)
        process = Process(target=work, args=(share, there))
        process.start()
        ends.append((here, process))
    for share, (here, process) in zip(shares, ends, strict=True):
        values[share.start :: CORES] = here.recv()
        process.join()
    return values


WAYS = {way.__name__: way for way in (batchflow, pool, pool_imap, futures, joblib, mpire, dask, ray_data, limit)}

if __name__ == "__main__":
    way, function, count, chunk = sys.argv[1:]
    values = WAYS[way](FUNCTIONS[function], int(count), int(chunk) or None)
    report(lambda: values)
