"""How the driver bears very many chunks."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.cluster

_DRIVES = """
import collections
import random
import sys
sys.path.insert(0, sys.argv[1])
import batchflow as bf
from fake import FakeExecutor

chunks = int(sys.argv[2])
executor = FakeExecutor(slots=512, pick=random.Random(7).randrange)
executor.performed = collections.deque(maxlen=0)  # else it keeps them all
job = bf.Job(lambda n: None if n % 1000 else n, bf.records(range(chunks)), chunk=1, executor=executor, progress=False)
assert job.plan().total == chunks
result = job.run()
assert result.values == list(range(0, chunks, 1000))
assert (result.report.chunks, result.report.rows_in, executor.most) == (chunks, chunks, 1024)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_memory_stays_flat_over_200_000_chunks():
    def peak(chunks):
        done = subprocess.run(
            [sys.executable, "-c", _DRIVES, os.path.dirname(os.path.dirname(__file__)), str(chunks)],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout)

    small, large = peak(20_000), peak(200_000)
    assert large - small < 8_000, f"{small} kB, and {large} kB for ten times as many"
