"""Ours as it is, with the same function of two arguments as the one without a ledger."""

import sys

import batchflow as bf
from benchmarks.functions import CORES, clean
from benchmarks.reporting import comparable, parquet_rows, report


def cleaned(event, _):
    return clean(event)


if __name__ == "__main__":
    source, out = sys.argv[1:]
    limits = bf.Resources(cpus=CORES)
    bf.map_records(
        cleaned,
        bf.read_json(source),
        into=f"{out}/",
        progress=False,
        limits=limits,
        setup=int,
        retry=bf.Retry(),
        timeout=600,
    )
    report(lambda: comparable(parquet_rows(out)))
