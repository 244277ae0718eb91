"""The same by hand: 200 tasks in one asyncio loop, each takes the next number."""

import asyncio
import sys
from collections.abc import Iterator

import aiohttp

from benchmarks.reporting import report


async def work(numbers: Iterator[int], session: aiohttp.ClientSession, url: str, values: list[int]) -> None:
    """Ask for one number after the other."""
    for n in numbers:
        async with session.get(f"{url}/{n}") as response:
            values[n] = int(await response.text())


async def main(url: str, count: int) -> list[int]:
    """Return what the server answers, in order."""
    values, numbers = [0] * count, iter(range(count))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=200)) as session:
        await asyncio.gather(*(work(numbers, session, url, values) for _ in range(200)))
    return values


if __name__ == "__main__":
    values = asyncio.run(main(sys.argv[1], int(sys.argv[2])))
    report(lambda: values)
