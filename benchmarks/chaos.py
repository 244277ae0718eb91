"""Is anything lost or doubled, whatever is killed? ``python -m benchmarks.chaos --kills 100``

One job runs undisturbed. The same job runs beside it while its workers, the process they are forked
from, and its driver are killed with SIGKILL at random instants; when the driver is dead the same
command is given again, until it comes to its end. Then the two outputs have to be equal row by row,
their error tables record by record, and `batchflow verify` has to prove the second one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from benchmarks.functions import clean
from datasets import events_jsonl

_ROOT = Path(__file__).parents[1]
_COMMAND = [sys.executable, "-m", "batchflow.cli.main"]
LOST_EACH = 97
"""One record of so many fails by itself, so that the error table has something to keep, too."""


def slowly(event: dict[str, Any]) -> dict[str, Any]:
    """Return a cleaned event, after some work; some are refused."""
    number = int(event["id"], 16)
    if number % LOST_EACH == 0:
        message = f"{event['id']} is refused"
        raise ValueError(message)
    return {**clean(event), "sum": hashlib.pbkdf2_hmac("sha256", event["id"].encode(), b"", 100).hex()}


def main(argv: list[str] | None = None) -> int:
    """Kill, go on, compare and tell; 1 if anything was lost or doubled."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--bytes", type=int, default=20_000_000, help="size of the input (default: 20 MB)")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args(argv)
    seed = random.randrange(10**6) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="batchflow-chaos-"))
    try:
        return _run(folder, options, random.Random(seed), seed)
    finally:
        shutil.rmtree(folder)


def _run(folder: Path, options: argparse.Namespace, rng: random.Random, seed: int) -> int:
    source = events_jsonl(options.bytes)
    calm = [*_job(source), "--into", str(folder / "calm/")]
    wild = [*_job(source), "--into", str(folder / "wild/")]
    began = time.perf_counter()
    _finish(calm)
    calm_seconds = time.perf_counter() - began
    began = time.perf_counter()
    kills = _disturbed(wild, options.kills, rng, calm_seconds)
    problems = _differences(folder)
    told = ", ".join(f"{count} {what}" for what, count in sorted(kills.items()))
    print(f"{sum(kills.values())} kills survived ({told}), seed {seed}")
    print(f"{calm_seconds:.1f} s undisturbed, {time.perf_counter() - began:.1f} s disturbed")
    print(*problems or ["0 rows lost, 0 rows doubled, 0 errors lost; verify proves it"], sep="\n")
    return 1 if problems else 0


def _job(source: Path) -> list[str]:
    options = ["--workers", "2", "--retry", "8", "--part-size", "300kB", "--quiet"]
    return [*_COMMAND, "run", "benchmarks.chaos:slowly", str(source), *options]


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {"BATCHFLOW_EXECUTOR": "processes"}
    return subprocess.Popen(command, cwd=_ROOT, stderr=subprocess.PIPE, env=environment)


def _finish(command: list[str]) -> None:
    """Run a command to its end; some records fail, so its status is 1."""
    running = _start(command)
    _, told = running.communicate()
    if running.returncode != 1:
        message = f"exit status {running.returncode}: {told.decode()}"
        raise RuntimeError(message)


def _disturbed(command: list[str], wanted: int, rng: random.Random, calm_seconds: float) -> Counter[str]:
    """Run a job to its end while its processes are killed; returns how often each kind was.

    The time between two kills is such that the job gets on, but not to its end, before the last one.
    """
    kills: Counter[str] = Counter()
    running = _start(command)
    while sum(kills.values()) < wanted:
        try:
            running.wait(rng.uniform(0.05, 2 * max(0.5, calm_seconds / wanted)))
        except subprocess.TimeoutExpired:
            kills[_kill_one(running, rng)] += 1
        if running.poll() is not None:
            running.communicate()
            if _has_ended(Path(command[-1])):
                shutil.rmtree(command[-1])  # it was too quick: begin again
            running = _start(command)
    running.communicate()
    _finish(command)
    return kills


def _has_ended(output: Path) -> bool:
    """Whether a job came to its end."""
    ledger = output.with_name(f".{output.name}_batchflow") / "ledger.log"
    return ledger.exists() and ledger.read_bytes().rpartition(b"\n{")[2].startswith(b'"end":')


def _kill_one(running: subprocess.Popen[bytes], rng: random.Random) -> str:
    """Kill the driver, the zygote or a worker; returns which."""
    victims: list[tuple[str, int]] = [("drivers", running.pid)]
    try:
        for zygote in psutil.Process(running.pid).children():
            victims.append(("zygotes", zygote.pid))
            victims += [("workers", worker.pid) for worker in zygote.children()] * 2
        kind, pid = rng.choice(victims)
        os.kill(pid, signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return "already gone"
    return kind


def _differences(folder: Path) -> list[str]:
    """Return what differs between the undisturbed output and the other."""
    calm, wild = (pq.read_table(folder / name) for name in ("calm", "wild"))
    problems = []
    if not wild.equals(calm):
        have, want = (Counter(table["id"].to_pylist()) for table in (wild, calm))
        problems.append(f"{(want - have).total()} rows lost, {(have - want).total()} rows doubled or out of order")
    columns = ["source", "start", "stop", "record", "payload", "phase", "error_type", "message"]
    tables = [folder / f".{name}_batchflow/errors.pq" for name in ("calm", "wild")]
    errors = [pq.read_table(table, columns=columns) for table in tables]
    if not errors[0].equals(errors[1]):
        problems.append(f"error tables differ: {errors[0].num_rows} and {errors[1].num_rows} rows")
    proof = subprocess.run([*_COMMAND, "verify", str(folder / "wild")], cwd=_ROOT, capture_output=True, text=True)
    if proof.returncode:
        problems.append(f"verify: {proof.stdout}{proof.stderr}")
    left = json.dumps(sorted(path.name for path in (folder / ".wild_batchflow").iterdir()))
    if "pieces" in left or ".new" in left:
        problems.append(f"left over: {left}")
    return problems


if __name__ == "__main__":
    sys.exit(main())
