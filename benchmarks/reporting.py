"""The last lines of every contestant: its peak memory and, when asked, a digest of its output."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

CHECK = "BENCHMARK_CHECK"
"""Environment variable that asks for the digest: in the warm-up only, for it takes longer than some jobs."""

_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def report(output: Callable[[], Iterable[Any]], call: float | None = None) -> None:
    """Print what the harness reads; the output is called for, row by row, when there is a check.

    ``call`` is what the contestant timed itself, in seconds.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
    digest = _digest(output()) if CHECK in os.environ else None
    print(json.dumps({"peak": peak, "digest": digest, "call": call}))


def median_call(work: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """Return the median seconds of some calls, and what the last one returned."""
    import statistics

    seconds, value = [], None
    for _ in range(rounds):
        began = time.perf_counter()
        value = work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), value


def parquet_rows(folder: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet dataset, in the order of its files' names."""
    import pyarrow.dataset as ds

    for batch in ds.dataset(folder, format="parquet").to_batches():
        yield from batch.to_pylist()


def comparable(rows: Iterable[dict[str, Any]], key: str = "id") -> list[dict[str, Any]]:
    """Return rows in an order of their own and times without a zone: not all who take part keep those."""
    plain = ({name: _without_zone(value) for name, value in row.items()} for row in rows)
    return sorted(plain, key=lambda row: str(row[key]))


def _without_zone(value: Any) -> Any:
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value


def _digest(rows: Iterable[Any]) -> str:
    import hashlib

    total, count = hashlib.blake2b(digest_size=8), 0
    for count, row in enumerate(rows, 1):  # noqa: B007 - the last count is the number of rows
        total.update(repr(row).encode())
    return f"{count:,} rows, {total.hexdigest()}"
