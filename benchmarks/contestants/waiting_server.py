"""Answers each request after 50 ms, one in 400 after 5 s; prints its address, and ends with its standard input."""

import asyncio
import sys

from aiohttp import web

SECONDS = 0.05
SLOW_SECONDS = 5.0
SLOW_EACH = 400
"""One call in so many is slow: number 200, 600, and so on."""


async def answer(request: web.Request) -> web.Response:
    """Give the number back."""
    slow = int(request.match_info["n"]) % SLOW_EACH == SLOW_EACH // 2
    await asyncio.sleep(SLOW_SECONDS if slow else SECONDS)
    return web.Response(text=request.match_info["n"])


async def main() -> None:
    """Serve until nobody holds the other end of standard input."""
    app = web.Application()
    app.router.add_get("/{n}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
