"""Hostile and broken input, functions and disks: an answer, not a crash, and nothing else is touched.

All parts are real: damaged files, a bomb, a file system that is full, a terminal's own language.
"""

from __future__ import annotations

import bz2
import glob
import gzip
import json
import lzma
import os
import pickle
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import zlib
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace

import lz4.frame
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from seen import seen

import batchflow as bf
from batchflow import errors
from batchflow.cli import main
from batchflow.core.text import printable, printable_json
from batchflow.io.stores import meta_of

ENVIRONMENT = os.environ | {"BATCHFLOW_EXECUTOR": "processes"}


@pytest.fixture
def processes(warm):
    return warm("processes")


def told(result, *columns):
    return [tuple(row.values()) for row in result.errors.select(list(columns)).to_pylist()]


# --- compressed files -----------------------------------------------------------------------------

CODECS = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "bz2": lambda data: bz2.compress(data, 1),
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    "lz4": lambda data: lz4.frame.compress(data, content_checksum=True),
    "xz": lzma.compress,
}
LINES = [f"line {number} {number * 7919 % 1000003:x}" for number in range(20_000)]
TEXT = "".join(f"{line}\n" for line in LINES).encode()


def _damaged(folder, codec, how):
    compress = CODECS[codec]
    data = bytearray(compress(TEXT) if how == "truncated" else compress(TEXT[:150_000]) + compress(TEXT[150_000:]))
    at = len(data) * 3 // 4
    if how == "truncated":
        del data[at:]
    else:
        data[at : at + 40] = random.Random(1).randbytes(40)
    path = folder / f"{codec}.txt.{codec}"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("how", ["truncated", "corrupt"])
def test_what_comes_before_a_damage_is_kept_and_the_rest_is_one_error(executor, tmp_path, how):
    """In files of all codecs side by side, and in parts of one output."""
    paths = {codec: _damaged(tmp_path, codec, how) for codec in CODECS}
    (tmp_path / "plain.txt").write_bytes(b"whole\n" * 3)
    result = bf.map_records(
        lambda line: {"line": line},
        bf.read_text([*map(str, paths.values()), str(tmp_path / "plain.txt")]),
        into=f"{tmp_path}/out/",
        executor=executor,
    )
    rows = [row["line"] for row in seen(result).values]
    assert rows[-3:] == ["whole"] * 3
    failed = result.errors.to_pylist()
    assert [row["source"] for row in failed if row["payload"] is None] == [str(path) for path in paths.values()]
    begin = 0
    for codec, path in paths.items():
        own = [row for row in failed if row["source"] == str(path)]
        (damage,) = [row for row in own if row["payload"] is None]
        assert damage is own[-1]  # nothing is read behind it
        kept = damage["record"] - len(own)
        sound = kept if how == "truncated" else 150_000 // 20  # what is corrupt may look like text for a while
        assert kept >= sound > 3000, codec
        assert rows[begin : begin + sound] == LINES[:sound]
        assert damage["start"] >= sum(len(line) + 1 for line in LINES[:sound])
        if how == "truncated":
            assert damage["start"] == sum(len(line) + 1 for line in LINES[:kept])
            assert len(own) == 1
        begin += kept
        assert (damage["stop"], damage["phase"], damage["error_type"]) == (None, "read", "DamagedError")
        assert ("truncated" if how == "truncated" else "corrupt") in damage["message"]
    assert begin + 3 == len(rows)
    assert result.report.rows_in == len(rows) + len(failed)


@pytest.fixture(scope="module")
def bombs(tmp_path_factory):
    """One gz of some megabytes and one bz2 of a few kilobytes; both hold 3 GB of one line."""
    folder = tmp_path_factory.mktemp("bombs")
    zeros = b"0" * (16 << 20)
    packer = zlib.compressobj(1, wbits=31)
    with open(folder / "bomb.txt.gz", "wb") as file:
        for _ in range(190):
            file.write(packer.compress(zeros))
        file.write(packer.flush())
    (folder / "bomb.txt.bz2").write_bytes(bz2.compress(b"0" * 45_000_000, 9) * 67)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("codec", ["gz", "bz2"])
def test_a_decompression_bomb_costs_itself_only(bombs, tmp_path, codec):
    bomb = bombs / f"bomb.txt.{codec}"
    assert bomb.stat().st_size < 16 << 20
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("n\n" * 75_000)  # the small bomb shares a chunk with them
    source = bf.read_text([str(tmp_path / "a.txt"), str(bomb), str(tmp_path / "b.txt")])
    peak = _peak(os.getpid())
    with bf.Processes(2) as executor:
        bf.map_records(len, bf.records(["x"] * 8), executor=executor, chunk=1)
        workers = {worker.tally.pid for worker in executor._workers.values()}
        result = bf.map_records(
            lambda line: {"size": len(line)},
            source,
            into=f"{tmp_path}/out/",
            per_task=bf.Resources(memory="300MB"),
            executor=executor,
            chunk="10MB",
        )
        assert {worker.tally.pid for worker in executor._workers.values()} == workers  # nobody died
        assert max(map(_peak, workers)) < 1_000_000_000
    assert [row["size"] for row in seen(result).values] == [1] * 150_000
    assert told(result, "source", "start", "stop", "record", "phase", "error_type") == [
        (str(bomb), 0, None, None, "memory", "MemoryError")
    ]
    assert result.errors["message"].to_pylist()[0].startswith("the task took more than per_task memory=300 MB")
    assert _peak(os.getpid()) - peak < 100_000_000


def _peak(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


@pytest.mark.parametrize("options", [{}, {"chunk": 100}])
@pytest.mark.parametrize("reader", ["read_text", "read_json", "read_csv"])
def test_bomb_sampled_by_the_driver_leaves_it_small(bombs, script, reader, options):
    """It looks at the beginning of a CSV file for types, and of any file for the size of its records."""
    done = script(
        f"""
        import sys
        import batchflow as bf

        small = bf.Resources(memory="200MB")
        result = bf.map_records(len, bf.{reader}(sys.argv[1]), per_task=small, executor=bf.Processes(1), **{options})
        print(result.errors["phase"].to_pylist(), len(result))
        peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
        print(int(peak.split()[1]) < 350_000, file=sys.stderr)  # kB; ru_maxrss would count what forked this
        """,
        bombs / "bomb.txt.gz",
    )
    inferred = "batchflow: types every cell is text\n" if reader == "read_csv" else ""
    assert (done.stdout, done.stderr) == ("['memory'] 0\n", f"{inferred}True\n")


def test_a_cell_without_an_end_does_not_fill_the_driver(tmp_path, monkeypatch):
    from batchflow.io.sources import line_reader as lines

    monkeypatch.setattr(lines, "LOOK_BYTES", 1 << 20)
    (tmp_path / "a.csv").write_bytes(b'n\n1\n"' + b"1\n" * 4_000_000)
    source = bf.read_csv(str(tmp_path / "a.csv"))
    ready = source.prepared(source.inputs())
    assert {name: kind.value for name, kind in ready.types.items()} == {"n": "int"}  # of what comes before it
    (tmp_path / "b.csv").write_bytes(b'"' + b"1\n" * 4_000_000)
    source = bf.read_csv(str(tmp_path / "b.csv"))
    assert source.prepared(source.inputs()).types == {}
    assert [span.whole for span, _ in [source.cuts(source.inputs()[0])(1 << 20)]] == [True]


# --- records --------------------------------------------------------------------------------------


def test_bad_lines_of_json(executor, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(
        b'{"n": 1}\n{"n": \n\xff\n{"n": 2}\n\n[}\n{"n": "\xc3\x28"}\n'
        + b"[" * 100_000
        + b"\n"
        + b'{"n": 3}\n{"n": 4'
    )
    result = bf.map_records(lambda row: row["n"], bf.read_json(f"{tmp_path}/a.jsonl"), executor=executor)
    assert seen(result).values == [1, 2, 3]
    rows = told(result, "record", "start", "stop", "phase")
    assert rows == [
        (2, 9, 16, "read"),
        (3, 16, 18, "read"),
        (6, 28, 31, "read"),
        (7, 31, 43, "read"),
        (8, 43, 100_044, "read"),
        (10, 100_053, 100_060, "read"),
    ]
    payloads = result.errors["payload"].to_pylist()
    assert payloads[:4] == ['{"n": ', "\\xff", "[}", '{"n": "\\xc3("}']
    assert len(payloads[4]) == 1000


def test_csv_rows_of_wrong_length_or_type_are_error_rows(executor, tmp_path):
    (tmp_path / "a.csv").write_bytes(b'n,t\n1,a\n2\n3,b,c\n\n4,"d\nd"\nx,e\n5,\xff\n6,f\n' + b"," * 5000 + b"\n")
    source = bf.read_csv(f"{tmp_path}/a.csv", types={"n": int})
    result = bf.map_records(dict, source, executor=executor)
    assert seen(result).values == [{"n": 1, "t": "a"}, {"n": 4, "t": "d\nd"}, {"n": 6, "t": "f"}]
    assert told(result, "record", "start", "stop", "message") == [
        (2, 8, 10, "1 cells, but the header has 2 columns"),
        (3, 10, 16, "3 cells, but the header has 2 columns"),
        (6, 25, 29, "column 'n': 'x' is not of type int"),
        (
            7,
            29,
            33,
            "column 't': the bytes are not UTF-8: if the file is in another encoding, pass it, like encoding='latin-1' (--encoding latin-1)",
        ),
        (9, 37, 5038, "5001 cells, but the header has 2 columns"),
    ]


def test_text_that_is_not_utf8_is_an_error_row(executor, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\n\xff\xfe\n\xed\xa0\x80\n\xc3\nb\0\n\xf0\x9f\x98\x80")
    result = bf.map_records(
        lambda line: {"t": line}, bf.read_text(f"{tmp_path}/a.txt"), into=f"{tmp_path}/o/", executor=executor
    )
    assert [row["t"] for row in seen(result).values] == ["a", "b\0", "😀"]
    assert told(result, "record", "start", "stop", "payload", "error_type") == [
        (2, 2, 5, "\\xff\\xfe", "ValueError"),
        (3, 5, 9, "\\xed\\xa0\\x80", "ValueError"),
        (4, 9, 11, "\\xc3", "ValueError"),
    ]


@pytest.mark.slow
def test_a_line_of_100_mb(processes, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\n" + b"x" * 100_000_000 + b"\nb\n")
    (tmp_path / "b.txt").write_bytes(b"y" * 10)
    source = bf.read_text([f"{tmp_path}/a.txt", f"{tmp_path}/b.txt"])
    limited = bf.map_records(  # first: a worker that has freed as much has room for it
        lambda line: {"size": len(line)},
        source,
        executor=processes,
        per_task=bf.Resources(memory="150MB"),
        into=f"{tmp_path}/out/",
        chunk="1MB",
    )
    assert [row["size"] for row in seen(limited).values][-1] == 10
    assert told(limited, "phase", "error_type") == [("memory", "MemoryError")]
    assert limited.errors["source"].to_pylist() == [f"{tmp_path}/a.txt"]
    result = bf.map_records(len, source, executor=processes, chunk="1MB")
    assert result.values == [1, 100_000_000, 1, 10]


# --- files that change or cannot be read ----------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "between", "within"])
def test_a_file_that_shrinks(processes, tmp_path, when):
    """After the plan was made, between two chunks of it, and under a reader that is in the middle of it."""
    path = tmp_path / "a.txt"
    path.write_bytes(b"0123456\n" * 200_000)
    left = 800_004 if when != "within" else 300_004

    def fn(line, path=str(path), first=when == "within"):
        if first and os.path.getsize(path) > left:
            os.truncate(path, left)
        return 1

    def shrink(event):
        if when == "before" and isinstance(event, bf.events.JobStarted):
            os.truncate(path, left)
        if when == "between" and isinstance(event, bf.events.TaskEnded) and path.stat().st_size > left:
            os.truncate(path, left)

    (tmp_path / "b.txt").write_bytes(b"whole\n")
    chunk = {"before": "10MB", "between": "100kB", "within": "10MB"}[when]
    job = bf.Job(
        fn,
        bf.read_text([str(path), f"{tmp_path}/b.txt"]),
        executor=bf.Processes(1) if when == "between" else processes,
        chunk=chunk,
        listeners=[shrink],
    )
    result = job.run()
    whole = left // 8
    assert len(result) == whole + 1
    failed = result.errors.to_pylist()
    assert {row["error_type"] for row in failed} == {"TruncatedError"}
    assert failed[0]["start"] == whole * 8
    assert failed[0]["record"] == whole + 1
    assert failed[0]["message"].startswith(f"the file ends at byte {left}, but had at least")
    if when != "between":
        assert len(failed) == 1
    else:  # an error for each chunk behind, which tile the rest
        ends = [(row["start"], row["stop"]) for row in failed]
        assert [start for start, _ in ends[1:]] == [stop for _, stop in ends[:-1]]
        assert ends[-1][1] == 1_600_000


def test_files_that_cannot_be_read(executor, tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"1\n")
    os.symlink("/nowhere/at/all", folder / "b.txt")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "c.txt"))
    os.symlink("/proc/self/mem", folder / "d.txt")
    (folder / "sub/e.txt").write_bytes(b"2\n")
    (folder / "z.txt").write_bytes(b"3\n")

    def vanish(event):
        if isinstance(event, bf.events.JobStarted):
            shutil.rmtree(folder / "sub")

    for source in (bf.read_text(str(folder)), bf.read_json(str(folder))):
        (folder / "sub").mkdir(exist_ok=True)
        (folder / "sub/e.txt").write_bytes(b"2\n")
        result = bf.Job(int, source, executor=executor, listeners=[vanish]).run()
        assert seen(result).values == [1, 3]
        assert [
            (os.path.relpath(source, folder), *row)
            for source, *row in told(result, "source", "record", "phase", "error_type")
        ] == [
            ("b.txt", 1, "read", "FileNotFoundError"),
            ("c.txt", 1, "read", "OSError"),
            ("d.txt", 1, "read", "OSError"),
            ("sub/e.txt", 1, "read", "FileNotFoundError"),
        ]


# --- a full disk ----------------------------------------------------------------------------------

FULL = """
    import glob, hashlib, os, subprocess, sys
    import psutil
    import batchflow as bf
    from batchflow import errors, events

    folder, into, how = sys.argv[1:]
    path = os.path.join(folder, into)
    N = 12_000

    def fn(x):
        if x % 1000 == 7:
            raise ValueError(x)
        return {"n": x, "t": hashlib.sha256(str(x).encode()).hexdigest() * 6}

    def fill(leave=0):
        file = os.open(f"{folder}/filler", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        try:
            while True:
                os.write(file, b"x" * 4096)
        except OSError:
            os.ftruncate(file, max(0, os.fstat(file).st_size - leave))
        os.close(file)

    class Listener:
        armed = how in ("ledger", "end")

        def __call__(self, event):
            wanted = {"ledger": events.TaskEnded, "end": events.JobEnded}.get(how)
            if self.armed and wanted and isinstance(event, wanted):
                self.armed = False
                fill()

    listener = Listener()

    def run(executor):
        job = bf.Job(fn, bf.records(range(N)), into=path, chunk=500, part_size="300kB", executor=executor, listeners=[listener])
        return job.run()

    if how.isdigit():
        fill(4096 * int(how))
    try:
        run(bf.Processes(2))
    except errors.OutputError as error:
        print(error)
    else:
        print("no error")
    assert not psutil.Process().children(recursive=True)
    shown = [name for name in os.listdir(folder) if not name.startswith(".") and name != "filler"]
    if into.endswith("/"):
        import pyarrow.parquet as pq
        rows = [n for part in sorted(glob.glob(path + "part-*")) for n in pq.read_table(part)["n"].to_pylist()]
        good = [n for n in range(N) if n % 1000 != 7]
        assert rows == good[:len(rows)] and (len(rows) < len(good) or how == "end"), len(rows)
        assert all(name.startswith("part-") for name in os.listdir(path))
    else:
        assert shown == ([into] if how == "end" else []), shown
    if os.path.exists(f"{folder}/filler"):
        os.unlink(f"{folder}/filler")
    subprocess.run(["mount", "-o", "remount,size=40m", folder], check=True)
    for executor in (bf.Processes(2), bf.Serial()):  # the same again, and once more when all is done
        result = run(executor)
        assert result.errors["record"].to_pylist() == [n + 1 for n in range(N) if n % 1000 == 7]
        assert [row["n"] for row in result.values] == [n for n in range(N) if n % 1000 != 7]
    print("nothing to do" in str(result.report))
    left = [file for _, _, files in os.walk(folder) for file in files if not file.startswith("part-") and file != into]
    print(*sorted(left))
"""


def on_a_small_disk(tmp_path, code, *arguments, size="2m"):
    """Run a script in a name space of its own, where a folder is a file system of a few megabytes."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "full.py").write_text(textwrap.dedent(code))
    inner = f'mount -t tmpfs -o size={size} tmpfs disk && exec "$0" full.py disk "$@"'
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", inner, sys.executable, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env=ENVIRONMENT,
        check=False,
    )


@pytest.mark.parametrize(
    ("into", "how"),
    [
        ("out/", "disk"),
        ("out.parquet", "disk"),
        ("out.csv", "disk"),
        ("out.jsonl", "disk"),
        ("out.arrow", "disk"),
        ("out/", "ledger"),
        ("out/", "end"),
        ("out.parquet", "end"),
        *(("out/", str(pages)) for pages in (0, 1, 2, 3, 8)),
    ],
)
def test_a_disk_that_fills_up(tmp_path, into, how):
    """While pieces and parts, the ledger, or at the end the error table are written; or full from the start."""
    size = (
        "30m" if how in ("end", "ledger") else {"out/": "1m", "out.parquet": "1m", "out.csv": "3m"}.get(into, "2m")
    )
    done = on_a_small_disk(tmp_path, FULL, into, how, size=size)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    message, finished, left = done.stdout.splitlines()
    assert message.startswith("cannot write ")
    assert f"disk/{into.rstrip('/')}" in message
    assert "No space left on device" in message
    assert message.endswith("; what is done is kept: run the same command again to go on")
    assert finished == "True"
    assert left == "errors.pq ledger.log plan.json report.html report.json trace.json"


def test_a_full_disk_at_the_command_line(tmp_path):
    code = """
        import subprocess, sys
        with open("in.txt", "w") as file:
            file.writelines(f"{n}\\n" for n in range(200_000))
        with open("steps.py", "w") as file:
            file.write("import hashlib\\ndef fn(x):\\n    return {'t': hashlib.sha256(x.encode()).hexdigest() * 4}\\n")
        command = [sys.executable, "-m", "batchflow.cli", "run", "steps.py:fn", "in.txt", "--into", "disk/out/", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True)
        print(done.returncode, done.stdout.strip(), done.stderr.strip())
        subprocess.run(["mount", "-o", "remount,size=90m", "disk"], check=True)
        print(subprocess.run(command).returncode)
    """
    done = on_a_small_disk(tmp_path, code)
    first, second = done.stdout.splitlines()
    assert first.startswith("1  batchflow: cannot write ")
    assert "No space left on device; what is done is kept: run the same command again to go on" in first
    assert second == "0"


# --- functions ------------------------------------------------------------------------------------


def odd_results(x):
    return [object(), {"a": [x]}, {"a": {"b": object()}}, {1: 2}, {"a": 2**70}, {"a": "\udc80"}, {"a": x}][x]


@pytest.mark.parametrize("into", ["out/", "out.csv", "out.jsonl", "out.arrow"])
def test_value_that_a_sink_cannot_hold_is_an_error_row(executor, tmp_path, into):
    """Lines of JSON have no columns: each holds what JSON has, whatever the others hold."""
    result = bf.map_records(
        odd_results, bf.records([6, *range(7)]), into=f"{tmp_path}/{into}", executor=executor, chunk=9
    )
    json = into == "out.jsonl"
    assert seen(result).values == [{"a": 6}, *([{"a": [1]}, {"a": 2**70}] if json else []), {"a": 6}]
    failed = (2, 4, 5, 7) if json else range(2, 8)
    assert told(result, "record", "phase") == [(number, "convert") for number in failed]
    messages = result.errors["message"].to_pylist()
    assert messages[0] == "the function returned an object, which is neither a mapping nor a scalar nor a list"
    if not json:
        assert (
            messages[1]
            == "column 'a' is list<item: int64> in this record, but int64 before: give it one type in the function"
        )
    result = bf.map_records(
        lambda x: {"a": [x]}, bf.records([1]), into=f"{tmp_path}/flat/", format="csv", executor=executor
    )
    assert told(result, "phase", "message") == [
        (
            "convert",
            "column 'a' is list<item: int64>, which a CSV cell cannot hold: use format='jsonl' or 'parquet', or flatten it",
        )
    ]


def test_a_function_that_cannot_be_shipped_leaves_old_output_untouched(remote, tmp_path):
    into = f"{tmp_path}/out/"
    bf.map_records(lambda x: {"a": x}, bf.records(range(5)), into=into, executor=remote)
    before = {
        path: path.read_bytes()
        for folder in (Path(into), meta_of(Path(into)))
        for path in folder.rglob("*")
        if path.is_file()
    }
    lock = threading.Lock()
    with pytest.raises(
        errors.FunctionError, match=r"cannot be shipped to a worker: cannot pickle '_thread\.lock' object"
    ):
        bf.map_records(lambda x: (lock, x), bf.records(range(5)), into=into, executor=remote, fresh=True)
    assert {
        path: path.read_bytes()
        for folder in (Path(into), meta_of(Path(into)))
        for path in folder.rglob("*")
        if path.is_file()
    } == before


class Evil:
    """Raises wherever somebody looks."""

    def __init__(self, manner):
        self.manner = manner

    def __reduce__(self):
        raise RuntimeError(self.manner)

    def __repr__(self):
        raise SystemExit("repr")

    __str__ = __eq__ = __hash__ = __len__ = __repr__


def test_results_that_cannot_be_pickled(remote):
    result = bf.map_records(
        lambda x: [x, threading.Lock(), Evil("no"), x][x], bf.records(range(4)), executor=remote, chunk=4
    )
    assert seen(result).values == [0, 3]
    assert [row[:2] for row in told(result, "record", "phase")] == [(2, "convert"), (3, "convert")]


class Leaver:
    """Ends, or tries to, whoever makes it again."""

    def __getstate__(self):
        return {"some": "state"}

    def __setstate__(self, state):
        raise SystemExit("bye")


def test_a_result_that_would_end_the_driver(processes):
    result = bf.map_records(lambda x: Leaver() if x == 1 else x, bf.records(range(3)), executor=processes, chunk=3)
    assert seen(result).values == [0, 2]
    assert told(result, "record", "phase", "error_type", "message") == [(2, "convert", "SystemExit", "bye")]


def test_a_stack_that_the_function_overflows_in_c(remote):
    def fn(x):
        deep = [x]
        for _ in range(50_000 if x == 2 else 0):
            deep = [deep]
        return {"a": deep}

    result = bf.map_records(fn, bf.records(range(4)), executor=remote, chunk=4)
    assert seen(result).values == [{"a": [0]}, {"a": [1]}, {"a": [3]}]
    assert result.errors["record"].to_pylist() == [3]


def test_records_that_cannot_be_pickled_or_shown(processes):
    good = bf.map_records(lambda x: 1, bf.records([1, Evil("no"), 3]), executor=processes, chunk=1)
    assert seen(good).values == [1, 1]
    assert told(good, "start", "phase", "message") == [(1, "read", "no")]


class EvilError(Exception):
    """An error that tells nothing of itself, and does not travel."""

    def __str__(self):
        raise RuntimeError("no")

    def __reduce__(self):
        os._exit(1)


class LoudError(Exception):
    def __init__(self, n):
        super().__init__("é" * 5_000_000)
        self.__cause__ = self if n == 2 else None


def deep(n):
    return deep(n - 1) if n else 1 // 0


def test_errors_that_are_evil_or_enormous(executor):
    def fn(x):
        if x == 0:
            raise EvilError
        if x in (1, 2):
            raise LoudError(x)
        if x == 3:
            deep(800)
        if x == 4:
            raise type("\x1b[31mRed", (Exception,), {})("\udc80")
        if x == 5:
            raise ExceptionGroup("many", [ValueError(n) for n in range(1000)])
        if x == 6:
            return (lambda f: f(f))(lambda f: f(f))
        return x

    result = bf.map_records(fn, bf.records(range(8)), executor=executor)
    assert seen(result).values == [7]
    assert result.errors["record"].to_pylist() == [1, 2, 3, 4, 5, 6, 7]
    assert result.errors["error_type"].to_pylist() == [
        "EvilError",
        "LoudError",
        "LoudError",
        "ZeroDivisionError",
        "\x1b[31mRed",
        "ExceptionGroup",
        "RecursionError",
    ]
    assert result.errors["message"].to_pylist()[0] == "<EvilError whose str() raised RuntimeError>"


def test_all_of_10_000_records_failed_each_is_kept(processes, tmp_path):
    def fn(x):
        raise ValueError(x)

    job = bf.Job(fn, bf.records(range(10_000)), into=f"{tmp_path}/out/", executor=processes, max_errors=10_000)
    result = job.run()
    assert result.errors["message"].to_pylist() == [str(x) for x in range(10_000)]
    assert job.run().errors.equals(result.errors)


def _numbered(folder):
    folder.mkdir()
    for at in range(6):
        (folder / f"{at}.txt").write_text(f"{at}\n")


def test_a_function_that_leaves_its_world_changed(processes, tmp_path, monkeypatch, capfd):
    """Prints, starts threads and children, goes elsewhere, closes its output, exits: only the exit is an error."""
    monkeypatch.chdir(tmp_path)
    _numbered(tmp_path / "in")

    def fn(line):
        x = int(line)
        if x == 0:
            print("out" * 100)
            print("err", file=sys.stderr)
        elif x == 1:
            threading.Thread(target=threading.Event().wait).start()
            subprocess.Popen(["sleep", "1000"])
        elif x == 2:
            os.chdir("/")
        elif x == 3:
            sys.exit("bye")
        elif x == 4:
            sys.stdout.close()
            sys.stderr.close()
            sys.stdin = sys.stdout = sys.stderr = None
        return {"x": x}

    with bf.Processes(1) as executor:
        result = bf.map_records(fn, bf.read_text("in/*.txt"), into="out/", executor=executor, chunk="1B")
        assert bf.map_records(len, bf.read_text("in/*.txt"), executor=executor).values == [1] * 6
        zygote = psutil.Process(executor._zygote.process.pid)
        children = [zygote, *zygote.children(recursive=True)]
    assert [row["x"] for row in seen(result).values] == [0, 1, 2, 4, 5]
    assert told(result, "source", "phase", "error_type", "message") == [("in/3.txt", "call", "SystemExit", "bye")]
    assert len(children) >= 3  # zygote, worker and sleeper
    assert psutil.wait_procs(children, timeout=5)[1] == []
    assert {line.split("] ")[1] for line in capfd.readouterr().err.splitlines()} >= {"out" * 100, "err"}


def test_a_fork_that_goes_on_does_not_answer_in_the_place_of_its_worker():
    """The classic mistake: the child of os.fork() falls through, and would do the worker's work a second time."""

    def fn(x):
        if x % 3 == 0 and os.fork() == 0 and x % 2:
            sys.exit()  # which the child's caller takes for an error of the record
        return x

    with bf.Processes(2) as executor:
        for _ in range(5):
            result = bf.map_records(fn, bf.records(range(12)), executor=executor, chunk=1)
            assert result.values == list(range(12))
            assert result.errors.num_rows == 0
        assert bf.map_records(str, bf.records(range(12)), executor=executor, chunk=1).values == [
            str(x) for x in range(12)
        ]


@pytest.mark.parametrize("chunk", [1, 8])
def test_record_that_writes_to_descriptors_of_its_worker_fails_alone(processes, chunk):
    def fn(x):
        for descriptor in range(3, 40) if x == 5 else ():
            with suppress(OSError):
                os.write(descriptor, b"junk" * 10)
        return x

    result = bf.map_records(fn, bf.records(range(8)), executor=processes, chunk=chunk)
    assert seen(result).values == [0, 1, 2, 3, 4, 6, 7]
    message = "the worker process was killed: the function wrote to a file descriptor that it did not open"
    assert told(result, "record", "error_type", "message") == [(6, "WorkerDied", message)]


def leave_by_exit():
    sys.exit(0)


def leave_by_error():
    raise ValueError


def leave_by_return():
    pass


@pytest.mark.parametrize("options", [{}, {"concurrency": 2}], ids=["plain", "threads"])
@pytest.mark.parametrize("leave", [leave_by_exit, leave_by_error, leave_by_return])
def test_fork_by_the_function_calls_no_later_record(processes, tmp_path, leave, options):
    def fn(x):
        with (tmp_path / "calls").open("a") as calls:
            calls.write(f"{x}\n")
        if x == 2:
            child = os.fork()
            if child == 0:
                leave()
            os.waitpid(child, 0)
        return x

    result = bf.map_records(fn, bf.records(range(6)), executor=processes, chunk=6, **options)
    assert result.values == list(range(6))
    assert sorted((tmp_path / "calls").read_text().split()) == [str(x) for x in range(6)]


IGNORED = (signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGSEGV)


def test_worker_state_a_function_spoilt_next_job_is_sound():
    """The next job on the same workers, with a timeout of its own, is as good as the first."""
    deeds = [
        lambda: [signal.signal(number, signal.SIG_IGN) for number in IGNORED],
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()),
        lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (3, 4)),
        lambda: resource.setrlimit(resource.RLIMIT_CPU, (1, 1)),
        lambda: os.closerange(0, 1000),
        lambda: os.kill(os.getppid(), signal.SIGINT),
        lambda: os.killpg(0, signal.SIGKILL),
        lambda: signal.setitimer(signal.ITIMER_REAL, 1e-6),
    ]

    def fn(x):
        if x < len(deeds):
            deeds[x]()
        return x

    def slow(x):
        if x == 2:
            while True:
                pass
        return x

    with bf.Processes(2) as executor:
        result = bf.map_records(fn, bf.records(range(10)), executor=executor, chunk=1)
        lost = {number - 1 for number in result.errors["record"].to_pylist()}
        assert lost <= {4, 6, 7}
        assert {4, 6} <= lost
        assert result.values == [x for x in range(10) if x not in lost]
        result = bf.map_records(slow, bf.records(range(4)), executor=executor, chunk=2, timeout=0.2)
        assert result.values == [0, 1, 3]
        assert told(result, "record", "phase") == [(3, "timeout")]


def test_a_function_that_hears_no_alarm(processes):
    """SIGALRM ignored or taken over inside the task: its worker is replaced a second later."""

    def fn(x):
        if x == 1:
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if x == 2:
            while True:
                with suppress(BaseException):
                    signal.pause()
        if x == 1:
            signal.pause()
        return x

    result = bf.map_records(fn, bf.records(range(4)), executor=processes, chunk=1, timeout=0.1)
    assert seen(result).values == [0, 3]
    assert told(result, "record", "phase", "error_type") == [
        (2, "timeout", "TimeoutError"),
        (3, "timeout", "TimeoutError"),
    ]


@pytest.mark.parametrize("limit", [0, 1, 3, 4, 0.0, 0.3, 1.0, None])
def test_edges_of_max_errors(processes, tmp_path, limit):
    """Four of twelve records fail; what is done of a stopped run is kept, and the same goes on without a limit."""

    def fn(x):
        if x % 3 == 0:
            raise ValueError(x)
        return {"x": x}

    def run(limit):
        return bf.map_records(
            fn, bf.records(range(12)), into=f"{tmp_path}/o/", max_errors=limit, chunk=3, executor=processes
        )

    if limit is not None and (limit * 12 if isinstance(limit, float) else limit) < 4:
        with pytest.raises(errors.StoppedError, match="record 1: ValueError: 0"):
            run(limit)
    else:
        assert run(limit).errors.num_rows == 4
    result = run(None)
    assert [row["x"] for row in seen(result).values] == [x for x in range(12) if x % 3]
    assert result.errors["record"].to_pylist() == [1, 4, 7, 10]


@pytest.mark.parametrize("limit", ["3", float("nan"), -1, 1.5, [1]])
def test_max_errors_that_mean_nothing(limit):
    with pytest.raises(errors.UsageError, match="max_errors="):
        bf.map_records(len, bf.records(["x"]), max_errors=limit)


# --- terminals ------------------------------------------------------------------------------------

EVIL = "\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\u202e\udc80\x7f"


def assert_tame(text, lines=True):
    assert all(letter.isprintable() or (lines and letter == "\n") for letter in text), ascii(text)


def test_one_function_escapes():
    assert printable(EVIL) == r"\x1b]0;owned\x07\x1b[2J\r\n\x9b31m\u202e\udc80\x7f"
    assert printable(printable(EVIL)) == printable(EVIL)
    assert (printable(None), printable("é 😀\\"), printable("\U000e0001")) == ("", "é 😀\\", r"\U000e0001")
    for text in ("\x7f\x9b\u202e\U000e0001\u2028", "plain", "é"):
        shown = printable_json(json.dumps([text], ensure_ascii=False))
        assert json.loads(shown) == [text]
        assert_tame(shown, lines=False)


STEPS = """
def fn(row):
    raise type("E\\x1b[31m\\x9b", (Exception,), {})(row.get("t"))

def echo(row):
    return row

def combine(table):
    if table.num_rows > 1:
        raise ValueError(table["t"][0].as_py())
    return table
"""


@pytest.mark.parametrize("name", ["plain", "evil\x1b[31m\u202e"])
def test_nothing_that_a_terminal_obeys_gets_to_it(tmp_path, monkeypatch, capsys, name):
    """Payload, message, class of the error, name of a source, of a column, of a type: at the command line and in exceptions."""
    evil = EVIL.replace("\udc80", "")
    (tmp_path / "hostile_steps.py").write_text(STEPS)
    (tmp_path / "in").mkdir()
    file = tmp_path / f"in/{name}.jsonl"
    file.write_text(
        json.dumps({"t": evil}) + "\n" + evil.replace("\n", "") + "\n" + json.dumps({"t": {evil: 1}}) + "\n"
    )
    with gzip.open(tmp_path / f"in/{name}.jsonl.gz", "wt") as packed:
        packed.write(json.dumps({"t": evil}) + "\n")
    shutil.copy(f"{file}.gz", tmp_path / "again.jsonl.gz")
    monkeypatch.chdir(tmp_path)

    def batchflow(*arguments):
        main(arguments if arguments[0] == "errors" else [*arguments, "--executor", "serial"])
        out, err = capsys.readouterr()
        assert_tame(out)
        assert_tame(err)
        return out + err

    assert r"\x1b]0;owned" in batchflow("run", "hostile_steps.py:fn", "in", "--read", "json", "--into", "out/")
    assert r"E\x1b[31m\x9b" in batchflow("errors", "out")
    assert r"\x1b]0;owned" in batchflow("errors", "out", "--all")
    assert "u001b]0;owned" in batchflow("errors", "out", "--json")
    assert r"\x1b]0;owned" in batchflow("run", "hostile_steps.py:fn", "in", "--read", "json", "--max-errors", "0")
    assert "u009b31m" in batchflow("run", "hostile_steps.py:echo", "in", "--read", "json", "--quiet")
    batchflow("run", "hostile_steps.py:echo", "in", "--read", "json", "--quiet", "--into", "echo/")
    assert r"is struct<\x1b]0;owned" in batchflow("errors", "echo", "--all")  # a type, in which keys stand
    assert name.isprintable() or r"evil\x1b[31m" in batchflow(
        "plan", "hostile_steps.py:echo", "in", "--read", "json"
    )
    combine = ("--combine", "hostile_steps.py:combine", "--chunk", "1B")
    assert r"combine= failed: ValueError: \x1b" in batchflow(
        "run", "hostile_steps.py:echo", f"in/{name}.jsonl.gz", "again.jsonl.gz", "--read", "json", *combine
    )
    file.write_text("changed\n")
    assert "has changed since" in batchflow("run", "hostile_steps.py:fn", "in", "--read", "json", "--into", "out/")


def test_nothing_that_a_terminal_obeys_in_exceptions(tmp_path, processes):
    def fn(x):
        raise ValueError(x)

    evil = tmp_path / "evil\x1b[31m.txt"
    evil.write_text("\x1b[2J\n")
    source = bf.read_text(str(evil))
    with pytest.raises(errors.StoppedError) as stopped:
        bf.map_records(fn, source, max_errors=0, executor=processes)
    with pytest.raises(errors.FailedRecordsError) as failed:
        bf.map_records(fn, source, executor=processes).raise_for_errors()
    for error in (stopped, failed):
        assert_tame(str(error.value), lines=False)
        assert r"evil\x1b[31m.txt, record 1: ValueError: \x1b[2J" in str(error.value)

    def together(table):
        if table.num_rows > 1:
            raise ValueError(table["value"][0].as_py())
        return table

    with pytest.raises(errors.BatchflowError, match=r"combine= failed: ValueError: \\x1b\[2J") as merged:
        bf.map_records(lambda x: x, bf.records(["\x1b[2J"] * 4), combine=together, chunk=1, executor=processes)
    assert_tame(str(merged.value))
    with pytest.raises(errors.SchemaError, match=r"struct<\\x1b\[2J: int64>") as schema:
        assert bf.map_records(
            lambda x: {"a": x}, bf.records([1, {"\x1b[2J": 1}]), chunk=1, executor=processes
        ).table
    assert_tame(str(schema.value))


# --- nothing is unpickled -------------------------------------------------------------------------


class Bomb:
    """Leaves a note where it is unpickled."""

    def __init__(self, note):
        self.note = note

    def __reduce__(self):
        return os.system, (f"touch {self.note}",)


@pytest.mark.parametrize("verb", ["run", "errors", "plan"])
@pytest.mark.parametrize("victim", ["plan.json", "ledger.log", "errors.pq", "report.json", "piece", "part", "all"])
def test_nothing_in_an_output_folder_is_ever_unpickled(tmp_path, monkeypatch, capsys, victim, verb):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile_steps.py").write_text(
        "def fn(x):\n    if x == '3':\n        raise ValueError(x)\n    return {'x': x}\n"
    )
    (tmp_path / "in.txt").write_text("1\n2\n3\n4\n")

    def batchflow(*arguments):
        capsys.readouterr()
        status = main(arguments)
        return SimpleNamespace(returncode=status, stdout=(read := capsys.readouterr()).out, stderr=read.err)

    run = ("run", "hostile_steps.py:fn", "in.txt", "--into", "out/", "--quiet", "--executor", "serial")
    if victim == "piece":  # of a run that was stopped
        assert batchflow(*run, "--max-errors", "0", "--chunk", "2B").returncode == 3
    else:
        assert batchflow(*run).returncode == 1
    meta = tmp_path / ".out_batchflow"
    files = {"piece": [*(meta / "pieces").glob("*")], "part": [*(tmp_path / "out").glob("part-*")]}
    files["all"] = [path for folder in (meta, tmp_path / "out") for path in folder.rglob("*") if path.is_file()]
    victims = files.get(victim, [meta / victim])
    assert victims
    bomb = pickle.dumps(Bomb(tmp_path / "owned"))
    for path in victims:
        path.write_bytes(bomb)
    done = batchflow(*{"run": run, "errors": ("errors", "out"), "plan": ("plan", *run[1:])}[verb])
    assert not (tmp_path / "owned").exists()
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 1
    if done.returncode not in (0, 1):
        assert done.returncode == 2
        assert done.stderr.startswith("batchflow: ")
    if victim in ("plan.json", "ledger.log", "all"):
        assert done.returncode == 2
    if victim == "piece" and verb == "run":  # it is not whole, so its chunk is done again
        assert sorted(pq.read_table(tmp_path / "out/part-00000.parquet")["x"].to_pylist()) == ["1", "2", "4"]


def test_the_bomb_is_one(tmp_path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / "owned")))
    assert (tmp_path / "owned").exists()


def test_an_arrow_type_that_hides_a_pickle_is_not_made_again(tmp_path):
    """Arrow's PyExtensionType once unpickled what a schema says; what an old ledger or part holds must not."""
    note = tmp_path / "owned"
    metadata = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Bomb(note)),
    }
    field = pa.field("x", pa.int64(), metadata=metadata)
    pq.write_table(pa.table({"x": [1]}, schema=pa.schema([field])), tmp_path / "a.parquet")
    with pytest.warns(RuntimeWarning) if _warns(field) else nullcontext():
        result = bf.map_records(lambda row: row, bf.read_parquet(f"{tmp_path}/a.parquet"), executor="serial")
    assert result.values == [{"x": 1}]
    assert not note.exists()


def _warns(field):
    import warnings

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        pa.ipc.read_schema(pa.schema([field]).serialize())
    return bool(seen)


# --- drift ----------------------------------------------------------------------------------------


def test_a_batch_that_does_not_fit_is_an_error_and_the_job_goes_on(executor, tmp_path):
    columns = [
        {"a": [1]},
        {"a": [2**60], "b": ["x"]},
        {"a": [0.5]},
        {"a": pa.array([7], pa.int8())},
        {"a": ["text"]},
        {"c": [True]},
    ]

    def fn(table):
        return columns[table["value"][0].as_py()]

    result = bf.map_batches(fn, bf.records(range(6)), into=f"{tmp_path}/out/", chunk=1, executor=executor)
    assert seen(result).values == [
        {"a": 1, "b": None, "c": None},
        {"a": 2**60, "b": "x", "c": None},
        {"a": 7, "b": None, "c": None},
        {"a": None, "b": None, "c": True},
    ]
    wide = "int64 with whole numbers beyond 2**53 before: give it one type in the function"
    assert told(result, "start", "phase", "message") == [
        (2, "convert", f"column 'a' is double in records[2:3], but {wide}"),
        (4, "convert", f"column 'a' is string in records[4:5], but {wide}"),
    ]
    for part in glob.glob(f"{tmp_path}/out/*.parquet"):
        assert b"batchflow" not in Path(part).read_bytes()


@pytest.mark.parametrize("kind", ["text", "csv"])
def test_a_line_that_no_worker_has_the_memory_for_costs_itself_only(processes, tmp_path, kind):
    """Though nobody can count the records of its chunk."""
    lines = [f"{n}" for n in range(40)]
    lines[17] = "x" * 120_000_000
    (tmp_path / "a.csv").write_text("n\n" * (kind == "csv") + "\n".join(lines) + "\n")
    source = bf.read_csv(tmp_path / "a.csv", types=str) if kind == "csv" else bf.read_text(tmp_path / "a.csv")
    result = bf.map_records(
        lambda row: row["n"] if kind == "csv" else row,
        source,
        executor=processes,
        chunk="1GB",
        per_task=bf.Resources(memory="100MB"),
    )
    assert seen(result).values == lines[:17] + lines[18:]
    assert told(result, "record", "phase", "error_type") == [(18, "memory", "MemoryError")]
