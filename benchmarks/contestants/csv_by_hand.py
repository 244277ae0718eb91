"""By hand: a CSV file with line breaks in its cells, a process for each half of it, into Parquet."""

import csv
import io
import sys
from pathlib import Path

from benchmarks.functions import CORES, in_processes, receipt, write_parquet
from benchmarks.reporting import comparable, parquet_rows, report


def cut(source, share):
    """Return where a share ends: at the first line break outside of quotes, which are counted from the start."""
    wanted = source.stat().st_size * share // CORES
    with source.open("rb") as file:
        inside = file.read(wanted).count(b'"') % 2
        while True:
            inside = (inside + file.readline().count(b'"')) % 2
            if not inside:
                return file.tell()


def convert(source, start, stop, target):
    """Write the rows of one share."""
    with source.open("rb") as file:
        names = next(csv.reader([file.readline().decode()]))
        file.seek(max(start, file.tell()))
        text = io.StringIO(file.read(stop - file.tell()).decode(), newline="")
    write_parquet((receipt(record) for record in csv.DictReader(text, names)), target)


if __name__ == "__main__":
    _, out, source = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    out.mkdir()
    ends = [0, *(cut(source, share) for share in range(1, CORES)), source.stat().st_size]
    in_processes(convert, ((source, ends[at], ends[at + 1], out / f"part-{at}.parquet") for at in range(CORES)))
    report(lambda: comparable(parquet_rows(str(out))))
