"""``python -m datasets events --bytes 250MB``: make a file, and say where it is."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from batchflow.core.resources import format_bytes, parse_bytes
from datasets import events_jsonl, sales_csv

KINDS: dict[str, Callable[[int], Path]] = {
    "events": events_jsonl,
    "sales": sales_csv,
    "sales-crlf": partial(sales_csv, crlf=True),
}


def main() -> None:
    """Make what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m datasets", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--bytes", type=parse_bytes, default="250MB", dest="size", help="default: 250MB")
    options = parser.parse_args()
    started = time.perf_counter()
    path = KINDS[options.kind](options.size)
    print(f"{path}  {format_bytes(path.stat().st_size)}  {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
