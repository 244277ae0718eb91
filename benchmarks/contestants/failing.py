"""A function that raises for a share of the rows of a CSV file, by ours and by peers with try and except."""

import csv
import sys
from functools import partial

from benchmarks.functions import CORES
from benchmarks.reporting import report


def price(row, share):
    """Return a row, but raise for so many of a hundred."""
    number = int(row["order"])
    if number % 100 < share:
        message = f"no price for {number}"
        raise ValueError(message)
    return {"id": number}


def caught(row, share):
    """Return a row, or its number and its error as batchflow's table has it: with record and traceback."""
    import traceback

    try:
        return price(row, share)
    except ValueError as error:
        return {"error": str(error), "record": repr(row), "traceback": traceback.format_exc()}


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def batchflow(path, share):
    import batchflow as bf

    result = bf.map_records(
        price,
        bf.read_csv(path),
        args={"share": share},
        progress=False,
        limits=bf.Resources(cpus=CORES),
        max_errors=1_000_000_000,
    )
    return [*result.values, *({"error": message} for message in result.errors["message"].to_pylist())]


def joblib(path, share):
    from joblib import Parallel, delayed

    return Parallel(n_jobs=CORES)(delayed(caught)(row, share) for row in rows_of(path))


def mpire(path, share):
    from mpire import WorkerPool

    with WorkerPool(n_jobs=CORES) as workers:
        return workers.map(partial(caught, share=share), ((row,) for row in rows_of(path)))


WAYS = {way.__name__: way for way in (batchflow, joblib, mpire)}

if __name__ == "__main__":
    way, path, share = sys.argv[1:]
    outcomes = WAYS[way](path, int(share))
    rows = [row for row in outcomes if "error" not in row]
    failed = sorted(row["error"] for row in outcomes if "error" in row)
    report(lambda: [*rows, *failed])
