"""By hand: one file of JSON Lines through `clean`, into Parquet, by processes with a share of it each."""

import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from benchmarks.functions import CORES, clean, in_processes, write_parquet
from benchmarks.reporting import comparable, parquet_rows, report


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
    write_parquet((clean(json.loads(line)) for line in lines(source, start, stop)), target)


if __name__ == "__main__":
    source, out = map(Path, sys.argv[1:])
    out.mkdir()
    shares = (
        (source, start, stop, out / f"part-{at}.parquet")
        for at, (start, stop) in enumerate(pairwise(cuts(source)))
    )
    in_processes(convert, shares)
    report(lambda: comparable(parquet_rows(str(out))))
