"""What does a call cost that only waits?

5,000 requests to a server on this machine, each answered after 50 ms, and one in 400 after 5 s, 200 of
them at once from one worker. By hand it is an asyncio program with the same client: 200 tasks that take the next
number each. The server is a process of its own. Start of Python, of worker and client is included.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.harness import Contestant, Suite

REQUESTS = 5_000
_SERVER = Path(__file__).parents[1] / "contestants" / "waiting_server.py"


def suite(scale: float) -> Suite:
    """Return the race, and start the server, which ends with this process."""
    server = subprocess.Popen([sys.executable, _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    args = (url, str(int(REQUESTS * scale)))
    return Suite(
        __doc__ or "",
        [
            Contestant("batchflow", "waiting_batchflow.py", args, needs="aiohttp"),
            Contestant("asyncio by hand", "waiting_by_hand.py", args, target=1.15, needs="aiohttp"),
        ],
    )
