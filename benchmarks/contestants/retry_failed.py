"""What failed of a job over a CSV file, tried again with a function that is fixed; and the whole job beside it."""

import sys
import tempfile
import time

from benchmarks.functions import CORES
from benchmarks.reporting import report


def price(row, share):
    """Return a row, but raise for so many of a hundred."""
    number = int(row["order"])
    if number % 100 < share:
        message = f"no price for {number}"
        raise ValueError(message)
    return {"id": number}


def job(path, share, folder):
    """Return a job of which so many records of a hundred fail."""
    import batchflow as bf

    return bf.Job(
        price,
        bf.read_csv(path),
        args={"share": share},
        into=f"{folder}/out/",
        version=str(share),
        progress=False,
        limits=bf.Resources(cpus=CORES),
        max_errors=1_000_000_000,
    )


def timed(work):
    began = time.perf_counter()
    result = work()
    report(lambda: result.table.to_pylist(), time.perf_counter() - began)


if __name__ == "__main__":
    path, share = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        if share == "whole":
            timed(job(path, 0, folder).run)
        else:
            job(path, int(share), folder).run()
            timed(job(path, 0, folder).retry_failed)
