"""Servers that the examples talk to: real ones, on this machine, in threads of the test process."""

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from aiosmtpd.controller import Controller

HOST = "127.0.0.1"
LONGEST = 30.0
"""Seconds that anything here waits before it gives up, so that a fault is a red test and no hang."""


class Sources:
    """An HTTP server of JSON documents, which counts how many requests it has at the same time.

    Attributes
    ----------
    documents
        By path, without the slash in front; any other path is answered with 503.
    before
        Called in the thread of a request, with its path, before it is answered.
    most
        Requests that were there at the same time, at most.
    seen
        How often each path was asked for.
    """

    def __init__(self, documents):
        self.documents = documents
        self.before = lambda path: None
        self.most = 0
        self.seen = Counter()
        self._now = 0
        self._lock = threading.Lock()

    def address(self, path):
        host, port = self._server.server_address
        return f"http://{host}:{port}/{path}"

    @contextmanager
    def running(self):
        with ThreadingHTTPServer((HOST, 0), self._handler()) as self._server:
            self._server.daemon_threads = True
            thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield self
            finally:
                self._server.shutdown()
                thread.join()

    def _answer(self, path):
        with self._lock:
            self.seen[path] += 1
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            self.before(path)
        finally:
            with self._lock:
                self._now -= 1
        return (200, self.documents[path]) if path in self.documents else (503, {})

    def _handler(self):
        sources = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                status, document = sources._answer(self.path.strip("/"))
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Say nothing."""

        return Handler


@contextmanager
def nobody():
    """Give an address at which nobody listens, and at which nobody else can either."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        yield f"http://{HOST}:{taken.getsockname()[1]}/"


class MailServer:
    """An SMTP server that takes mail for all but some addresses.

    Attributes
    ----------
    mails
        Each mail that was taken, in the order it came: whom it is for, and its text.
    refused
        How often mail for each of the other addresses was refused.
    most
        Mails that were on their way at the same time, at most.
    times
        When each began, by `time.monotonic`.
    """

    def __init__(self, unknown):
        self.unknown = frozenset(unknown)
        self.mails = []
        self.refused = Counter()
        self.most = 0
        self.times = []
        self._open = set()
        self._interrupt = None

    @property
    def received(self):
        """How often mail was taken for each address."""
        return Counter(to for to, _ in self.mails)

    @property
    def port(self):
        return self._controller.port

    def interrupt_after(self, count, pid_file):
        """Press Ctrl-C once so many mails are here, for the process whose number stands in a file."""
        self._interrupt = count, Path(pid_file)

    @contextmanager
    def running(self):
        self._controller = _AnyPort(self, hostname=HOST, port=0, ready_timeout=LONGEST)
        self._controller.start()
        try:
            yield self
        finally:
            self._controller.stop()

    # --- called by the server, in its thread ------------------------------------------------------

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802 - the name it calls
        self.times.append(time.monotonic())
        self._open.add(address)
        self.most = max(self.most, len(self._open))
        await asyncio.sleep(0.02)  # far away
        if address in self.unknown:
            self._open.discard(address)
            self.refused[address] += 1
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        [to] = envelope.rcpt_tos
        self._open.discard(to)
        self.mails.append((to, envelope.content.decode()))
        if self._interrupt is not None and len(self.mails) == self._interrupt[0]:
            os.kill(int(self._interrupt[1].read_text()), signal.SIGINT)
        return "250 OK"


class _AnyPort(Controller):
    """A server at whatever port is free; by itself it would say hello to itself at port 0."""

    def _trigger_server(self):
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()
