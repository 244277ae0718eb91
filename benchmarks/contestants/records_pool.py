"""Without a library: a file for each task of `multiprocessing.Pool` or `concurrent.futures`, into Parquet."""

import gzip
import json
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.functions import CORES, RECORDS, write_parquet
from benchmarks.reporting import comparable, parquet_rows, report


def convert(job):
    """Write the rows of one file."""
    source, target = job
    with (gzip.open if source.endswith(".gz") else open)(source, "rb") as lines:
        write_parquet((RECORDS["json"](json.loads(line)) for line in lines), target)


def with_pool(jobs):
    with multiprocessing.Pool(CORES) as pool:
        for _ in pool.imap_unordered(convert, jobs):
            pass


def with_futures(jobs):
    with ProcessPoolExecutor(CORES) as pool:
        list(pool.map(convert, jobs))


def with_joblib(jobs):
    from joblib import Parallel, delayed

    Parallel(n_jobs=CORES)(delayed(convert)(job) for job in jobs)


def with_mpire(jobs):
    from mpire import WorkerPool

    with WorkerPool(n_jobs=CORES) as pool:
        pool.map(convert, [(job,) for job in jobs])


def with_parallel(jobs):
    """Let GNU parallel start a program for each file."""
    files = (text for job in jobs for text in job)
    command = ["parallel", "--will-cite", f"-j{CORES}", "-N2", sys.executable, __file__, "one", "{2}", "{1}"]
    subprocess.run([*command, ":::", *files], check=True)


def largest_first(jobs):
    """Do what nobody can do better who does not cut files: the largest first, whoever is free takes the next."""
    with_pool(sorted(jobs, key=lambda job: -Path(job[0]).stat().st_size))


WAYS = {
    "pool": with_pool,
    "futures": with_futures,
    "joblib": with_joblib,
    "mpire": with_mpire,
    "parallel": with_parallel,
    "limit": largest_first,
}

if __name__ == "__main__":
    way, out, *sources = sys.argv[1:]
    if way == "one":
        convert((sources[0], out))
        sys.exit()
    Path(out).mkdir()
    WAYS[way]([(source, f"{out}/part-{at:06}.parquet") for at, source in enumerate(sources)])
    report(lambda: comparable(parquet_rows(out)))
