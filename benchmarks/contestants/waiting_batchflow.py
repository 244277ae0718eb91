"""Ours, calls that wait: one worker, 200 at once."""

import sys
from typing import Any

import batchflow as bf
from benchmarks.reporting import report


async def client() -> Any:
    """Return a client of the worker's own."""
    import aiohttp  # only the worker needs it

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=200))


async def get(n: int, session: Any, url: str) -> int:
    """Return what the server answers."""
    async with session.get(f"{url}/{n}") as response:
        return int(await response.text())


if __name__ == "__main__":
    url, count = sys.argv[1], int(sys.argv[2])
    result = bf.map_records(
        get,
        bf.records(range(count)),
        setup=client,
        args={"url": url},
        concurrency=200,
        progress=False,
        executor="processes",
        limits=bf.Resources(cpus=1),
    )
    report(lambda: result.raise_for_errors().values)
