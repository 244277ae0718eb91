"""One rate for all processes of a machine: whatever happens to them, the lock comes free and nothing is left."""

import os
import pickle
import subprocess
import sys
import threading

import pytest

from batchflow.core.rate import Rate
from batchflow.executors.rate_limiter import FileRateLimiter
from batchflow.executors.serial import Serial
from batchflow.io.sources.in_memory import RecordsSource
from batchflow.worker import Program


@pytest.fixture
def bucket():
    made = FileRateLimiter(Rate(3600.0))
    yield made
    made.close()


def test_it_is_one_wherever_it_is(bucket):
    there = pickle.loads(pickle.dumps(bucket))
    assert there.reserve() == 0
    assert 1700 < bucket.reserve() <= 1800
    assert 1700 < there.reserve() <= 1800
    bucket.pause(7200)
    assert there.reserve() > 7000


def test_threads_do_not_count_twice():
    bucket = FileRateLimiter(Rate(3600.0, 50))
    free = []
    threads = [
        threading.Thread(target=lambda: free.extend(bucket.reserve() == 0 for _ in range(20))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bucket.close()
    assert (len(free), sum(free)) == (160, 50)


def test_a_process_that_is_killed_frees_the_lock(bucket):
    code = (
        "import sys, pickle, os, signal\n"
        "bucket = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "with bucket._locked():\n"
        "    print('locked', flush=True)\n"
        "    signal.pause()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, pickle.dumps(bucket).hex()], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "locked\n"
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert bucket.reserve() == 0


def test_without_proc_it_has_a_name_while_it_is_needed(monkeypatch, tmp_path):
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bucket = FileRateLimiter(Rate(3600.0))
    assert len(os.listdir(tmp_path)) == 1
    assert pickle.loads(pickle.dumps(bucket)).reserve() == 0
    assert bucket.reserve() > 0
    bucket.close()
    assert os.listdir(tmp_path) == []


def test_unload_closes_it():
    before = len(os.listdir("/proc/self/fd"))
    executor = Serial()
    job = executor.load(Program(abs, RecordsSource(data=None), rate=Rate(1.0)))
    assert len(os.listdir("/proc/self/fd")) == before + 1
    executor.unload(job)
    assert len(os.listdir("/proc/self/fd")) == before
