"""``python -m benchmarks.instructions``: how many instructions does a record cost, beside what was recorded?

Time depends on the machine and on who else uses it; the number of instructions hardly does. Each path of a record
is run on `Serial` under Valgrind's callgrind, after a warm-up, with few and with many records: what the many take
more, for each of them. The function returns its record, so what is counted is ours, and Python's, Arrow's and the
decoder's. Python does not look for garbage meanwhile: whether one more look at all that is loaded falls among the
many is chance, and 8,000 instructions for each.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

RECORDED = Path(__file__).with_suffix(".json")
FEW, MANY = 1_000, 5_000
_JOB = "bf.map_records(same, bf.{source}, chunk={{count}}, executor='serial'{more})"
PATHS = {
    "records": _JOB.format(source="records(range({count}))", more=""),
    "text": _JOB.format(source="read_text('{file}')", more=""),
    "json": _JOB.format(source="read_json('{file}')", more=""),
    "json to parquet": _JOB.format(source="read_json('{file}')", more=", into='{out}/'"),
    "csv": _JOB.format(source="read_csv('{file}')", more=""),
}


def main() -> None:
    """Count, and print the counts beside those that were recorded."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    parser.add_argument("--record", action="store_true", help="keep these counts, to compare later ones with")
    options = parser.parse_args()
    before = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    counts = {name: per_record(code) for name, code in PATHS.items()}
    print("| path | instructions a record | recorded | now / recorded |\n|---|---:|---:|---:|")
    for name, count in counts.items():
        recorded = before.get(name)
        told = ("", "") if recorded is None else (f"{recorded:,}", f"{count / recorded:.3f}")
        print(f"| {name} | {count:,} | {told[0]} | {told[1]} |")
    if options.record:
        RECORDED.write_text(json.dumps(counts, indent=2) + "\n")


def per_record(code: str) -> int:
    """Return what a record takes."""
    with tempfile.TemporaryDirectory() as folder:
        warm, few, many = (
            code.format(count=count, file=_input(Path(folder), code, count), out=Path(folder, name))
            for name, count in [("warm", FEW), ("few", FEW), ("many", MANY)]
        )
        program = _PROGRAM.format(warm=warm, few=few, many=many)
        done = subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                "--instr-atstart=no",
                f"--callgrind-out-file={folder}/counts",
                sys.executable,
                "-c",
                program,
            ],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | _STEADY,
        )
        if done.returncode:
            sys.exit(done.stderr)
        counts = [_total(Path(folder, f"counts.{number}")) for number in (1, 2)]
    return round((counts[1] - counts[0]) / (MANY - FEW))


_PROGRAM = """
import gc, os, subprocess
import batchflow as bf

gc.disable()

def same(record):
    return record

def count(option):
    subprocess.run(["callgrind_control", *option, str(os.getpid())], check=True, stdout=subprocess.DEVNULL)

{warm}
count(["-i", "on"])
{few}
count(["-d"])
{many}
count(["-d"])
os._exit(0)
"""


def _total(file: Path) -> int:
    """Return the instructions of a dump."""
    found = re.search(r"^(?:totals|summary): (\d+)", file.read_text(), re.MULTILINE)
    assert found is not None, file
    return int(found[1])


def _input(folder: Path, code: str, count: int) -> Path:
    """Make a file with so many records, of the kind that a path reads."""
    csv = "read_csv" in code
    form = "{at},name {at},{at}.5" if csv else '{{"id": {at}, "name": "name {at}", "price": {at}.5}}'
    file = folder / f"{count}.{'csv' if csv else 'jsonl'}"
    lines = [*(["id,name,price"] if csv else []), *(form.format(at=at) for at in range(count))]
    file.write_text("\n".join(lines) + "\n")
    return file


_STEADY = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
"""What makes two runs alike."""


if __name__ == "__main__":
    main()
