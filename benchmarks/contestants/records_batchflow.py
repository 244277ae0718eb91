"""Ours: records through a function of each, into a Parquet dataset."""

import sys

import batchflow as bf
from benchmarks.functions import CORES, RECORDS
from benchmarks.reporting import comparable, parquet_rows, report

READERS = {"json": bf.read_json, "csv": bf.read_csv}

if __name__ == "__main__":
    kind, out, *sources = sys.argv[1:]
    source = READERS[kind](sources)
    limits = bf.Resources(cpus=CORES)
    bf.map_records(RECORDS[kind], source, into=f"{out}/", progress=False, limits=limits)
    report(lambda: comparable(parquet_rows(out)))
