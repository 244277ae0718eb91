"""Ours without what makes it safe: no ledger, no digest, no sync; what is done is lost if anything dies."""

import os
import sys

import batchflow as bf
from batchflow.combiner import dataset_writer as dataset
from benchmarks.functions import CORES, clean
from benchmarks.reporting import comparable, parquet_rows, report


class NoLedger:
    """Writes nothing down."""

    def __init__(self, *_):
        self.made = 0

    def number(self):
        self.made += 1
        return self.made

    def __getattr__(self, name):
        return lambda *_, **__: None


def unsafe():
    """Take digests and syncs out of a worker."""
    import batchflow.worker.runner as runner
    import batchflow.worker.sinks as outlets

    outlets.digest = runner.digest = lambda _: ""
    os.fsync = lambda _: None


def cleaned(event, _):
    return clean(event)


if __name__ == "__main__":
    source, out = sys.argv[1:]
    dataset.Ledger = NoLedger
    dataset.digest = lambda _: ""
    os.fsync = lambda _: None
    limits = bf.Resources(cpus=CORES)
    bf.map_records(cleaned, bf.read_json(source), into=f"{out}/", progress=False, limits=limits, setup=unsafe)
    report(lambda: comparable(parquet_rows(out)))
