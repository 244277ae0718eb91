"""The functions that the contestants map: one copy, so that all of them do the same work."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

CORES = 2
"""Processes that each contestant may use."""


def square(number: int) -> int:
    """Return a number times itself: next to nothing, so what is timed is the machinery."""
    return number * number


BURNS = 4_000
"""Numbers of which `burn` takes a thousand times as long for the last as for the first."""


def burn(number: int) -> int:
    """Return a sum that takes the longer the larger the number is."""
    return sum(range(int(600 * 1_000 ** (number / BURNS))))


FUNCTIONS: dict[str, Callable[[int], int]] = {"square": square, "burn": burn}


def clean(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event of `datasets.events_jsonl` as a flat row: the work of many a first job."""
    user = event["user"]
    time = datetime.fromisoformat(event["time"])
    return {
        "id": event["id"],
        "time": time,
        "weekday": time.weekday(),
        "kind": event["kind"],
        "country": user["country"],
        "customer": " ".join(unicodedata.normalize("NFC", user["name"]).casefold().split()),
        "revenue": round(event["price"] * event["quantity"], 2),
        "coupon": event["coupon"],
        "tags": len(event["tags"]),
    }


def receipt(sale: dict[str, Any]) -> dict[str, Any]:
    """Return a record of `datasets.sales_csv` as a row, whatever types its reader gave it."""
    price = sale["price"]
    return {
        "id": f"{int(sale['order']):010}",
        "day": str(sale["day"])[:10],
        "customer": " ".join(sale["customer"].casefold().split()),
        "total": round(float(price) * int(sale["quantity"]), 2) if price else 0.0,
        "paid": str(sale["paid"]) == "True",
        "lines": len(sale["note"].splitlines()) if sale["note"] else 0,
    }


RECORDS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"json": clean, "csv": receipt}
"""What is done with a record, by the kind of file that it is read from."""


def in_processes(work: Callable[..., None], shares: Iterable[Sequence[Any]]) -> None:
    """Do each share in a process of its own, all at once; ends the program if one fails."""
    from multiprocessing import Process  # each contestant is to pay for what it uses, and for no more

    processes = [Process(target=work, args=tuple(share)) for share in shares]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        sys.exit("a share failed")


ROWS = 50_000
"""Rows of a table that is written by hand: large enough for Arrow, small enough for memory."""


def write_parquet(rows: Iterable[dict[str, Any]], target: Any) -> None:
    """Write rows to a Parquet file, table by table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    left = iter(rows)
    writer = schema = None
    while some := list(islice(left, ROWS)):
        table = pa.Table.from_pylist(some, schema=schema)
        schema = table.schema
        writer = writer or pq.ParquetWriter(target, schema)
        writer.write_table(table)
    if writer:
        writer.close()


def calibrated(batch: Any) -> Any:
    """Return the good readings of a table in other units, with Arrow's functions: whole numbers throughout."""
    import pyarrow as pa
    import pyarrow.compute as pc

    good = pc.not_equal(pc.bit_wise_and(batch["quality"], 15), 0)
    batch = batch.filter(good)
    nine = pc.multiply(batch["value"].cast(pa.int64()), 9)
    below = pc.subtract(nine, pc.multiply(pc.divide(nine, 5), 5))  # Arrow rounds towards zero
    floor = pc.subtract(pc.divide(nine, 5), pc.cast(pc.less(below, 0), pa.int64()))
    ones = pa.repeat(pa.scalar(1, pa.int64()), batch.num_rows)
    return pa.table({"sensor": batch["sensor"], "value": pc.add(floor, 320), "count": ones})


def summed(table: Any) -> Any:
    """Return the sums for each sensor."""
    sums = table.group_by("sensor", use_threads=False).aggregate([("value", "sum"), ("count", "sum")])
    return sums.rename_columns(["sensor", "value", "count"])


def made(number: int) -> Any:
    """Return a table of 16 MB."""
    import numpy as np
    import pyarrow as pa

    return pa.table({"x": np.arange(number, number + 2_000_000, dtype=np.int64)})


def same(value: Any) -> Any:
    """Return an argument as it is: a step that does nothing."""
    return value


def diamond(step: Callable[..., Any], count: int) -> Any:
    """Write a step, two that take it and one that takes both; it is always four of them."""
    del count
    first = step(same, 1)
    return step(same, [step(same, first), step(same, first)])


def chain(step: Callable[..., Any], count: int) -> Any:
    """Write steps that each take the one before."""
    last = step(same, 0)
    for _ in range(count - 1):
        last = step(same, last)
    return last


def wide(step: Callable[..., Any], count: int) -> Any:
    """Write steps that take nothing of each other, and one that counts them."""
    return step(len, [step(same, number) for number in range(count)])


GRAPHS: dict[str, Callable[[Callable[..., Any], int], Any]] = {"diamond": diamond, "chain": chain, "wide": wide}
"""Each is written with a function that adds a step and returns what stands for its value."""


def windowed(task: Any, arguments: Iterable[Any], window: int) -> list[Any]:
    """Return what plain Ray tasks give, in order, with so many at Ray at a time."""
    import ray

    values: dict[int, Any] = {}
    running: dict[Any, int] = {}

    def take(count: int) -> None:
        done, _ = ray.wait(list(running), num_returns=count)
        for reference in done:
            values[running.pop(reference)] = ray.get(reference)

    for number, argument in enumerate(arguments):
        running[task.remote(argument)] = number
        if len(running) >= window:
            take(1)
    take(len(running))
    return [values[number] for number in range(len(values))]
