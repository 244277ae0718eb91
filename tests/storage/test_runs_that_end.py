"""Runs that end at any step that reaches the store, drivers that are killed, and two drivers at once."""

import os
import signal
import subprocess
import sys

import crash
import pytest
from crash import Crash, proved
from fake import FakeExecutor

import batchflow as bf
from batchflow import errors
from batchflow.checkpoint import file_journal as syncing
from batchflow.checkpoint import object_journal as putting
from batchflow.cli import main

pytestmark = pytest.mark.cluster


def fn(n):
    if n % 7 == 3:
        raise ValueError(n)
    return {"n": n} if n < 30 else {"n": n, "late": str(n)}


def expected(size=40):
    return [{"n": n, "late": str(n) if n >= 30 else None} for n in range(size) if n % 7 != 3]


@pytest.fixture
def fused(monkeypatch):
    """End runs in the middle of a step that reaches the store; called with the steps to let pass."""
    return crash.wire_store(monkeypatch)


def run(into, size=40, **options):
    options = {"executor": FakeExecutor(2), "chunk": 5, "part_size": 1200, "fn": fn, **options}
    return bf.map_records(options.pop("fn"), bf.records(list(range(size))), into=into, **options)


@pytest.mark.parametrize("name", ["out/", "x.parquet"])
@pytest.mark.parametrize(("kind", "many", "stride"), [("mock", 3, 1), ("mock", 500, 1), ("s3", 3, 11)])
def test_a_run_that_ends_at_any_step_goes_on(bucket, fused, monkeypatch, name, kind, many, stride):
    """Each run gets some steps farther than the one before, and is killed in the midst of the next."""
    monkeypatch.setattr(putting, "MANY", many)
    monkeypatch.setattr(syncing, "SYNC_SECONDS", 3600)
    steps, ended = 0, False
    while not ended:
        into = f"{kind}://{bucket.name}/{steps}/{many}/{name}"
        fused(steps)
        try:
            run(into)
            ended = True
        except Crash:
            fused(10**9)
            result = run(into)
            assert result.table.to_pylist() == expected()
            assert result.errors["record"].to_pylist() == [4, 11, 18, 25, 32, 39]
        assert proved(into) == []
        steps += stride
    assert steps > 20
    assert not any("/pieces/" in key or "/ledger/" in key for key in bucket.names(f"{steps - stride}/"))


def test_retries_that_end_at_any_step_change_all_or_nothing(bucket, fused):
    into = f"mock://{bucket.name}/out/"
    job = bf.Job(
        lambda n: {"n": n},
        bf.records(list(range(20))),
        into=into,
        version="2",
        executor=FakeExecutor(2),
        chunk=5,
        part_size=1200,
    )
    steps, ended = 0, False
    while not ended:
        run(into, 20, fresh=True)
        fused(steps)
        try:
            job.retry_failed()
            ended = True
        except Crash:
            fused(10**9)
            assert job.retry_failed().table["n"].to_pylist() == list(range(20))
        assert proved(into) == []
        steps += 1
    assert steps > 10


def test_a_driver_that_is_killed_leaves_what_the_next_one_goes_on_with(bucket, tmp_path):
    """With processes of its own, and S3's threads in all of them."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal, sys\n"
        "import batchflow as bf\n"
        "from batchflow.checkpoint import file_journal as syncing\n"
        "syncing.SYNC_SECONDS = 0.01\n"
        "def fn(n):\n    return n\n"
        "def killed(event):\n"
        "    if type(event).__name__ == 'ChunkSettled' and event.stats.rows_in and event.key >= (0, 300):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "source = bf.records(range(500))\n"
        "job = bf.Job(fn, source, into=sys.argv[1], chunk=50, part_size=800, executor='processes',\n"
        "             listeners=[killed] if len(sys.argv) > 2 else [])\n"
        "result = job.run()\n"
        "print(result.report.before > 0, result.values == list(range(500)))\n"
    )
    command = [sys.executable, str(script), f"{bucket.uri}/out/"]
    done = subprocess.run([*command, "killed"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "True True\n"), done.stderr
    assert "Traceback" not in done.stderr
    assert "S3" not in done.stderr  # nothing to tell when the client is shut down
    assert proved(f"{bucket.uri}/out") == []


def test_two_runs_at_once_are_noticed(bucket, monkeypatch):
    """The later one takes over; the one before is told so when it next writes something down."""
    monkeypatch.setattr(syncing, "SYNC_SECONDS", 3600)
    into, calls = f"{bucket.uri}/out/", []

    def interrupted(n):
        calls.append(n)
        if len(calls) == 22:
            assert run(into, fn=fn, version="2").values == expected()
        return fn(n)

    with pytest.raises(
        errors.DestinationError, match=rf"another run is writing to {bucket.uri}/out: wait for its end"
    ):
        run(into, fn=interrupted, executor="serial")
    assert proved(into) == []
    assert run(into).values == expected()


def test_a_run_that_was_planned_before_another_went_on_is_refused(bucket):
    from batchflow.checkpoint.history import History
    from batchflow.checkpoint.ledger import Ledger
    from batchflow.io.stores import place_of

    run(f"{bucket.uri}/out/")
    with pytest.raises(
        errors.DestinationError, match=r"another run has gone on with s3://.*/out meanwhile: run this"
    ):
        Ledger(place_of(f"{bucket.uri}/.out_batchflow"), History())


def stopped(into):
    """Leave an output in the midst of its making, with some segments."""

    def fn(n):
        if n == 22:
            raise KeyboardInterrupt
        return {"n": n}

    with pytest.raises(errors.InterruptedRun, match=r"what is done is kept in s3://.*; run the same again"):
        run(into, fn=fn, executor="serial")


def test_a_segment_that_is_gone_or_was_changed(bucket, capsys, monkeypatch):
    monkeypatch.setattr(syncing, "SYNC_SECONDS", 3600)
    stopped(f"{bucket.uri}/out/")
    first, *_, last = [key for key in bucket.names(".out_batchflow/ledger/") if key.endswith("g")]
    data = bucket.get(first)
    bucket.put(first, data.replace(b"0", b"1", 1))
    assert main(["verify", f"{bucket.uri}/out"]) == 1
    assert "was changed after it was written" in capsys.readouterr().out
    bucket.delete(first)
    assert main(["verify", f"{bucket.uri}/out"]) == 1
    assert "a segment of it in" in capsys.readouterr().out
    bucket.put(first, data)
    bucket.delete(last)
    assert main(["verify", f"{bucket.uri}/out"]) == 1
    assert "the job has not come to its end: run it again, and it goes on" in capsys.readouterr().out
    assert run(f"{bucket.uri}/out/", version="2").report.rows_in == 40
    assert os.environ["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1:")


def test_a_piece_that_was_changed_is_found_by_who_fetches_it(bucket):
    stopped(f"{bucket.uri}/x.parquet")
    piece = next(key for key in bucket.names() if "/pieces/" in key and key.endswith(".piece"))
    data = bytearray(bucket.get(piece))
    data[len(data) // 2] ^= 1
    bucket.put(piece, bytes(data))
    with pytest.raises(
        errors.OutputError, match=rf"cannot write .*x.parquet: OSError: .*{piece} was changed after"
    ):
        run(f"{bucket.uri}/x.parquet", version="2")
