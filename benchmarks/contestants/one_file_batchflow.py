"""Ours: one file of JSON Lines through `clean`, into a Parquet dataset."""

import sys

import batchflow as bf
from benchmarks.functions import CORES, clean
from benchmarks.reporting import parquet_rows, report

if __name__ == "__main__":
    source, out = sys.argv[1:]
    limits = bf.Resources(cpus=CORES)
    bf.map_records(clean, bf.read_json(source), into=f"{out}/", progress=False, limits=limits)
    report(lambda: parquet_rows(out))
