"""A real server on this machine, which counts, times and fails requests as a test says."""

import asyncio
import threading
import time
from contextlib import contextmanager

from aiohttp import web


class Server:
    """Answers ``/<n>`` with the number; runs in a thread of its own until it is closed.

    Attributes
    ----------
    times : list
        When each request came, by `time.monotonic`.
    seen : list
        Their numbers, in the same order.
    most : int
        Requests that were ever here at once.
    """

    def __init__(self):
        self.reset()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._started.wait(30)

    def reset(self, gather=0, hold=(), until=0, busy=None, delay=0.0):
        """Forget what came; answer anew.

        Parameters
        ----------
        gather
            No request is answered before so many are here at once.
        hold, until
            These numbers are answered only when so many others were.
        busy
            How often a number is told to come again, and after how many seconds: ``{n: (times, seconds)}``.
        """
        self.times, self.seen, self.most, self.here, self.answered = [], [], 0, 0, 0
        self._gather, self._hold, self._until, self._busy, self._delay = (
            gather,
            set(hold),
            until,
            busy or {},
            delay,
        )
        self._changed = None

    def _run(self):
        self._loop.run_until_complete(self._open())
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _open(self):
        app = web.Application()
        app.router.add_get("/{n}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _answer(self, request):
        n = int(request.match_info["n"])
        self._changed = self._changed or asyncio.Condition()
        self.times.append(time.monotonic())
        self.seen.append(n)
        self.here += 1
        self.most = max(self.most, self.here)
        try:
            times, seconds = self._busy.get(n, (0, 0))
            if self.seen.count(n) <= times:
                return web.Response(status=429, headers={"Retry-After": str(seconds)})
            await asyncio.sleep(self._delay)
            async with self._changed:
                self._changed.notify_all()
                if self.most < self._gather:
                    await self._changed.wait_for(lambda: self.most >= self._gather)
                if n in self._hold:
                    await self._changed.wait_for(lambda: self.answered >= self._until)
                self.answered += 1
                self._changed.notify_all()
            return web.Response(text=str(n))
        finally:
            self.here -= 1

    def close(self):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


@contextmanager
def serving():
    server = Server()
    try:
        yield server
    finally:
        server.close()


def most_in(times, seconds):
    """Return the most of some times that lie within so many seconds of each other."""
    times = sorted(times)
    first = most = 0
    for at, time_ in enumerate(times):
        while time_ - times[first] >= seconds:
            first += 1
        most = max(most, at + 1 - first)
    return most
