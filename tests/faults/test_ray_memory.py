"""Ray's own memory watch kills a worker: chunks become smaller, the guilty record stands alone, nobody else is blamed."""

import os
import time
from collections import deque

import psutil
import pytest

pytestmark = pytest.mark.cluster

CODE = """
    import sys, time
    import batchflow as bf

    def fn(n):
        if n == 5:
            hog = bytearray(b"x") * {hog}
            time.sleep(30)  # Ray's watch looks now and then, and kills this
        return n

    result = bf.map_records(fn, bf.records(range(12)), executor="ray", chunk=6)
    print(result.values)
    columns = ["record", "payload", "phase", "error_type", "attempts"]
    print(result.errors.select(columns).to_pylist())
    print(result.errors["message"][0].as_py())
"""


def settled():
    """Return the bytes in use once they stay the same: what ended right before gives back its own by and by."""
    seen = deque(maxlen=5)
    while len(seen) < 5 or max(seen) - min(seen) > 50e6:
        memory = psutil.virtual_memory()
        seen.append(memory.total - memory.available)
        time.sleep(0.2)
    return seen[-1]


def test_a_record_that_rays_memory_watch_kills_costs_itself_only(script, monkeypatch):
    """A real kill: the watch is told that the machine is full at 2.6 GB above what is in use now.

    Ray takes 1.2 GB of them, and the watch kills until it is as much below: so there is room left for whatever
    else the machine does meanwhile.
    """
    total, used = psutil.virtual_memory().total, settled()
    monkeypatch.setitem(os.environ, "RAY_memory_usage_threshold", f"{(used + 2_600_000_000) / total:.4f}")
    monkeypatch.setitem(os.environ, "RAY_memory_monitor_refresh_ms", "50")
    values, errors, message = script(CODE.format(hog=4_500_000_000)).stdout.splitlines()
    assert values == str([n for n in range(12) if n != 5])
    # the chunk, the chunk with the start of each record noted, the record, and the record with nothing beside it
    assert errors == str(
        [{"record": 6, "payload": "5", "phase": "memory", "error_type": "WorkerDied", "attempts": 4}]
    )
    assert "OutOfMemoryError" in message
