"""By hand: one file of JSON Lines through `clean`, into Parquet, by processes with a share of it each."""

import json
import sys
from collections.abc import Iterator
from itertools import islice, pairwise
from multiprocessing import Process
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.functions import CORES, clean
from benchmarks.reporting import comparable, parquet_rows, report

ROWS = 50_000
"""Rows of a table: large enough for Arrow, small enough for memory."""


def cuts(source: Path) -> list[int]:
    """Return where the shares begin and end: each at the first line after its part of the bytes."""
    size = source.stat().st_size
    found = [0]
    with source.open("rb") as file:
        for share in range(1, CORES):
            file.seek(size * share // CORES)
            file.readline()
            found.append(file.tell())
    return [*found, size]


def lines(source: Path, start: int, stop: int) -> Iterator[bytes]:
    """Yield the lines between two cuts."""
    with source.open("rb") as file:
        file.seek(start)
        for line in file:
            if start >= stop:
                return
            start += len(line)
            yield line


def convert(source: Path, start: int, stop: int, target: Path) -> None:
    """Write the rows of one share."""
    records = lines(source, start, stop)
    writer = schema = None
    while rows := [clean(json.loads(line)) for line in islice(records, ROWS)]:
        table = pa.Table.from_pylist(rows, schema=schema)
        schema = table.schema
        writer = writer or pq.ParquetWriter(target, schema)
        writer.write_table(table)
    if writer:
        writer.close()


if __name__ == "__main__":
    source, out = map(Path, sys.argv[1:])
    out.mkdir()
    shares = [
        Process(target=convert, args=(source, start, stop, out / f"part-{at}.parquet"))
        for at, (start, stop) in enumerate(pairwise(cuts(source)))
    ]
    for process in shares:
        process.start()
    for process in shares:
        process.join()
    if any(process.exitcode for process in shares):
        sys.exit("a share failed")
    report(lambda: comparable(parquet_rows(str(out))))
