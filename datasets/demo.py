"""The main job on real input: what the standard library of this very Python defines.

One row for each function and class of about 1,700 source files. A few of them do not parse, on
purpose: they are the test data of Python's own tests, and they end in the error table.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import batchflow as bf
from datasets.stdlib import ROOT, definitions

OUTPUT = "demo-out/"


def sources() -> list[Path]:
    """Return the source files of the standard library, without packages that were installed into it."""
    return sorted(path for path in ROOT.rglob("*.py") if "site-packages" not in path.parts)


def main() -> None:
    """Run the job, and show its summary, its first rows and what failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executor", help="serial, processes or ray")
    executor = parser.parse_args().executor or None

    result = bf.map_records(
        definitions, bf.files(sources()), into=OUTPUT, fresh=True, executor=executor, progress=True
    )

    print(result.report)
    print(f"\nfirst rows of {result.table.num_rows:,} in {result.path}/")
    for row in result.table.slice(0, 5).to_pylist():
        print("  {module:12} {kind:8} {name:20} line {line}, {length} lines, {arguments} arguments".format(**row))
    print(f"\n{result.errors.num_rows} files failed")
    for row in result.errors.select(["source", "phase", "error_type", "message"]).to_pylist():
        name = Path(row["source"]).relative_to(ROOT)
        print(f"  {name}: {row['phase']}: {row['error_type']}: {row['message']}")
    print(f"\nthe whole error table: batchflow errors {OUTPUT} --all")


if __name__ == "__main__":
    main()
