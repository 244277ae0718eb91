"""Outputs on an object store are what they are on a disk: the same rows, errors, parts and proofs."""

import shutil

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import s3
from crash import proved

import batchflow as bf
from batchflow import errors
from batchflow.cli import main
from batchflow.io.stores import filesystem, place_of
from batchflow.io.stores import object_store as objects
from batchflow.io.stores import staging as transit
from batchflow.reporting import export as papers

pytestmark = pytest.mark.cluster

MADE = [
    ".out_batchflow/errors.pq",
    ".out_batchflow/ledger.log",
    ".out_batchflow/plan.json",
    ".out_batchflow/report.html",
    ".out_batchflow/report.json",
    ".out_batchflow/trace.json",
]


def fn(n):
    if n % 50 == 7:
        raise ValueError(n)
    return {"n": n, "text": str(n) * 20} if n < 900 else {"n": n, "text": str(n), "late": n / 2}


def run(into, executor="serial", source=range(1000), fn=fn, **options):
    return bf.map_records(fn, bf.records(source), into=into, executor=executor, chunk=100, **options)


def table(uri):
    system, path = filesystem(uri)
    return pq.read_table(path, filesystem=system)


def shown(result):
    return result.errors.drop_columns(["worker", "seconds"]).to_pylist()


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_folder_is_what_it_is_on_a_disk(bucket, tmp_path, executor, kind):
    here = run(f"{tmp_path}/out/", executor, part_size=4000, format=kind)
    there = run(f"{bucket.uri}/out/", executor, part_size=4000, format=kind)
    assert there.values == here.values
    assert shown(there) == shown(here)
    names = sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_file())
    assert bucket.parts() == [f"out/{name}" for name in names]
    assert len(names) > 2
    for name in names:
        assert bucket.get(f"out/{name}") == (tmp_path / "out" / name).read_bytes()
    whole = [key for key in bucket.names() if not key.endswith("/")]
    assert whole == [*MADE, *(f"out/{name}" for name in names)]
    assert there.path == f"{bucket.uri}/out"
    assert proved(f"{bucket.uri}/out") == []


@pytest.mark.parametrize("name", ["x.parquet", "a b+%41/x ü.csv", "x.jsonl", "x.arrow"])
def test_one_file(bucket, tmp_path, name):
    here = run(f"{tmp_path}/{name}", source=range(500))
    there = run(f"{bucket.uri}/{name}", source=range(500))
    assert there.values == here.values
    assert bucket.get(name) == (tmp_path / name).read_bytes()
    assert proved(f"{bucket.uri}/{name}") == []
    again = run(f"{bucket.uri}/{name}", source=range(500))
    assert "nothing to do: all of it was done before" in str(again.report)


def test_new_input_is_added_on_every_executor(bucket, executor):
    for at in (0, 1):
        bucket.put(f"in/{at}.txt", f"{at}\nx\n")
        source = bf.read_text(f"{bucket.uri}/in/")
        result = bf.map_records(int, source, into=f"{bucket.uri}/out/", executor=executor)
        assert result.values == list(range(at + 1))
        assert result.errors["source"].to_pylist() == [f"{bucket.uri}/in/{n}.txt" for n in range(at + 1)]
        assert (result.report.rows_in, result.report.before) == (2 * at + 2, 2 * at)
        assert proved(f"{bucket.uri}/out") == []


def test_from_the_command_line(bucket, tmp_path, capsys):
    (tmp_path / "steps.py").write_text("def clean(line):\n    return int(line)\n")
    bucket.put("in/a.txt", "1\n2\nx\n")
    arguments = [f"{tmp_path}/steps.py:clean", f"{bucket.uri}/in/*.txt", "--into", f"{bucket.uri}/out/"]
    assert main(["plan", *arguments, "--no-sample"]) == 0
    assert f"output    {bucket.uri}/out (parquet, parts of" in capsys.readouterr().out
    assert main(["plan", *arguments[:-1], f"{bucket.uri}/out.csv"]) == 1  # a record of the sample fails
    assert bucket.names() == ["in/a.txt"]  # that it can be written to was tried
    assert main(["run", *arguments, "--executor", "serial"]) == 1
    assert main(["errors", f"{bucket.uri}/out/"]) == 1
    assert "1 x ValueError in call" in capsys.readouterr().out
    (tmp_path / "mended.py").write_text("def clean(line):\n    return int(line, 36)\n")
    function = f"{tmp_path}/mended.py:clean"
    assert main(["retry", f"{bucket.uri}/out", function, "--version", "2", "--executor", "serial"]) == 0
    assert table(f"{bucket.uri}/out/part-00000.parquet")["value"].to_pylist() == [1, 2, 33]
    assert main(["verify", f"{bucket.uri}/out"]) == 0


def test_its_report_lies_beside_it(bucket, tmp_path, capsys):
    result = run(f"{bucket.uri}/out/")
    page = bucket.get(".out_batchflow/report.html")
    assert main(["report", f"{bucket.uri}/out/"]) == 0
    assert capsys.readouterr().out == f"{bucket.uri}/.out_batchflow/report.html\n"
    result.save_report(tmp_path / "copy.html")
    assert (tmp_path / "copy.html").read_bytes() == page
    copy = papers.local_copy(place_of(f"{bucket.uri}/.out_batchflow/report.html"))
    assert (copy.read_bytes(), copy.suffix) == (page, ".html")
    shutil.rmtree(copy.parent)


def test_only_what_failed_is_made_again(bucket, executor):
    run(f"{bucket.uri}/out/", executor, part_size=4000)
    parts = bucket.parts()
    job = bf.Job(
        lambda n: {"n": n, "text": "mended"},
        bf.records(range(1000)),
        into=f"{bucket.uri}/out/",
        chunk=100,
        part_size=4000,
        version="2",
        executor=executor,
    )
    result = job.retry_failed()
    assert result.errors.num_rows == 0
    assert [row["n"] for row in result.values] == list(range(1000))
    assert sum(row["text"] == "mended" for row in result.values) == 20
    assert bucket.parts() == parts
    assert proved(f"{bucket.uri}/out") == []
    assert not any("/pieces/" in key or "/ledger/" in key for key in bucket.names())


def test_what_was_changed_is_found(bucket, capsys):
    run(f"{bucket.uri}/out/", source=range(300), part_size=4000)
    part, ledger, table = "out/part-00001.parquet", ".out_batchflow/ledger.log", ".out_batchflow/errors.pq"
    whole = bucket.get(part)
    for key, data, told in (
        (part, None, "part-00001.parquet is gone"),
        (part, b"x", "it was cut off or added to"),
        (part, whole[:-1] + b"!", "part-00001.parquet was changed after it was written"),
        ("out/more.parquet", b"x", "more.parquet is no part of this output"),
        (table, b"x", "errors.pq is gone or was changed"),
        (ledger, bucket.get(ledger) + b"{", "ledger.log goes on behind its last line"),
    ):
        before = bucket.get(key) if key in bucket.names() else None
        bucket.put(key, data) if data is not None else bucket.delete(key)
        assert main(["verify", f"{bucket.uri}/out"]) == 1
        assert told in capsys.readouterr().out
        bucket.put(key, before) if before is not None else bucket.delete(key)
    assert proved(f"{bucket.uri}/out") == []


def test_a_reader_sees_whole_parts_only(bucket):
    """Whenever a record is at hand, all that a reader of the folder finds can be read."""
    seen = set()

    def look(n):
        if n % 25 == 0:
            system, path = filesystem(f"{bucket.uri}/out")
            found = ds.dataset(path, filesystem=system, format="parquet") if bucket.parts() else None
            seen.add(found.count_rows() if found else 0)
        return fn(n)

    run(f"{bucket.uri}/out/", fn=look, part_size=4000)
    assert len(seen) > 2
    assert seen < {len([n for n in range(end) if n % 50 != 7]) for end in range(0, 1001, 100)}


def test_large_parts_go_up_in_many_requests(bucket, server):
    def large(n):
        return {"n": n, "bytes": bytes(n * i % 251 for i in range(1 << 16)) * 16}

    result = bf.map_records(
        large, bf.records(range(14)), into=f"{bucket.uri}/x.arrow", executor="serial", chunk=7, format="arrow"
    )
    assert result.table["n"].to_pylist() == list(range(14))
    numbers = {query.partition("&")[0] for method, path, query in server.asked if "partNumber" in query}
    assert numbers >= {"partNumber=1", "partNumber=2"}
    assert [path for method, path, query in server.asked if query == "uploads"] != []
    assert len(bucket.get("x.arrow")) > 14 << 20


def test_parts_that_the_store_would_not_copy_come_by_here(bucket, monkeypatch):
    monkeypatch.setattr(objects, "COPY_LIMIT", 1000)
    assert run(f"{bucket.uri}/out/", part_size=4000).values == run(f"{bucket.uri}/more/").values
    assert proved(f"{bucket.uri}/out") == []


def test_nothing_is_left_behind(bucket, tmp_path, monkeypatch):
    """No temporary file stays, and those of a worker that was killed go with the next run."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    killed = tmp_path / f"{transit._PREFIX}{transit.os.getuid()}-killed"
    killed.mkdir()
    (killed / "part.parquet").write_bytes(b"x")
    with transit.scratch_dir() as other:  # of another process that lives
        run(f"{bucket.uri}/out/")
        assert [str(path) for path in tmp_path.iterdir()] == [other]
    assert list(tmp_path.iterdir()) == []


def test_fresh_makes_all_of_it_again_and_leaves_what_is_not_ours(bucket):
    run(f"{bucket.uri}/out/", part_size=4000)
    bucket.put("out/_notes.txt", b"mine")
    result = run(f"{bucket.uri}/out/", source=range(10), fresh=True)
    assert result.report.before == 0
    assert bucket.parts() == ["out/part-00000.parquet"]
    assert bucket.get("out/_notes.txt") == b"mine"


def test_what_is_not_ours_is_refused(bucket):
    bucket.put("there/file.txt", b"x")
    bucket.put("file", b"x")
    bucket.put("folder.csv/x", b"x")
    for into, told in {
        "there/": "exists and was not made by batchflow",
        "file/": "is a file, but the output is a folder of parts",
        "folder.csv": "is a folder: end the name of a dataset with '/'",
    }.items():
        with pytest.raises(errors.DestinationError, match=told):
            run(f"{bucket.uri}/{into}")
    for missing in ("no/", "x.csv"):
        with pytest.raises(errors.InputError, match=r"is no output of batchflow: s3://.* does not exist"):
            proved(f"{bucket.uri}/{missing}")


# --- credentials ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "s3://me:hush@bucket/x",
        "s3://hush@bucket/x",
        "s3://bucket/x?access_key=hush",
        "hdfs://me:hush@host/x",
        "s3://bucket/x?region=eu&secret_key=hush",
        "https://bucket/x?X-Amz-Signature=hush",
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri, capsys, tmp_path):
    for call in (lambda: run(uri), lambda: bf.read_text(uri), lambda: proved(uri)):
        with pytest.raises(errors.UsageError, match="must not hold credentials") as caught:
            call()
        assert "hush" not in str(caught.value)
    for command in (
        ["run", "x.py:f", uri],
        ["run", "x.py:f", "in", "--into", uri],
        ["verify", uri],
        ["submit", "run", __file__ + ":fn", uri],
    ):
        assert main(command) == 2
        assert "hush" not in "".join(capsys.readouterr())


def test_a_user_without_a_password_is_no_secret():
    with pytest.raises(errors.InputError, match=r"does not exist|cannot list"):
        bf.read_text("nosuch://me@host/x").inputs()


def test_no_secret_is_written_down(bucket, server, capsys):
    run(f"{bucket.uri}/out/", part_size=4000)
    server.refuses = lambda method, path, query: method == "PUT"
    with pytest.raises(errors.OutputError) as caught:
        run(f"{bucket.uri}/more/")
    written = [bucket.get(key) for key in bucket.names()]
    assert len(written) > 5
    for secret in (s3.SECRET, s3.ACCESS):
        assert not any(secret.encode() in data for data in written)
        assert secret not in str(caught.value) + "".join(capsys.readouterr())


# --- what does not work is told --------------------------------------------------------------------


def test_a_bucket_that_is_not_there(client):
    with pytest.raises(errors.DestinationError, match="there is no bucket s3://nowhere"):
        run("s3://nowhere/out/")
    with pytest.raises(errors.InputError, match="'s3://nowhere/in/' does not exist"):
        bf.map_records(len, bf.read_text("s3://nowhere/in/"), executor="serial")


def test_a_bucket_that_lets_nobody_look(bucket, server):
    server.refuses = lambda method, path, query: True
    with pytest.raises(
        errors.DestinationError, match=rf"cannot reach {bucket.uri}/out: .*(ACCESS_DENIED|Access Denied)"
    ):
        run(f"{bucket.uri}/out/")


def test_a_bucket_that_lets_nobody_write(bucket, server):
    server.refuses = lambda method, path, query: method == "PUT"
    with pytest.raises(
        errors.OutputError, match=rf"cannot write to {bucket.uri}/out: .*ACCESS_DENIED.*run the same"
    ):
        run(f"{bucket.uri}/out/")


def test_a_server_that_is_down(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(errors.DestinationError, match=r"cannot reach s3://bucket/out: .*NETWORK_CONNECTION"):
        run("s3://bucket/out/")


@pytest.mark.parametrize(("what", "before"), [("/pieces/", 4), ("/ledger/", 2), ("part-00001.parquet", 1)])
def test_a_store_that_fails_in_the_middle_of_a_run(bucket, server, what, before):
    """The run stops with one sentence, and the same call goes on once the store works again."""
    puts = []

    def refuses(method, path, query):
        if method == "PUT" and what in path:
            puts.append(path)
        return len(puts) > before and method == "PUT" and what in path

    server.refuses = refuses
    with pytest.raises(
        errors.OutputError, match=r"cannot write .*(ACCESS_DENIED|Access Denied).*; .*run the same"
    ) as caught:
        run(f"{bucket.uri}/out/", part_size=4000)
    assert len(str(caught.value).splitlines()) == 1
    server.refuses = lambda *_: False
    calls = []
    result = run(f"{bucket.uri}/out/", part_size=4000, version="2", fn=lambda n: calls.append(n) or fn(n))
    assert len(calls) < 1000
    assert [row["n"] for row in result.values] == [n for n in range(1000) if n % 50 != 7]
    assert proved(f"{bucket.uri}/out") == []


def test_reading_while_a_run_makes_one_ledger_of_its_segments(bucket, monkeypatch):
    """Whoever asks for errors during a run gets them, wherever the lines are just then."""
    from batchflow.checkpoint import file_journal as syncing
    from batchflow.checkpoint import object_journal as putting

    monkeypatch.setattr(syncing, "SYNC_SECONDS", 3600)
    monkeypatch.setattr(putting, "MANY", 2)
    seen = []

    def look(n):
        if n % 100 == 0 and bucket.parts():
            seen.append(main(["errors", f"{bucket.uri}/out"]))
        return fn(n)

    run(f"{bucket.uri}/out/", fn=look, part_size=2000)
    assert seen
    assert proved(f"{bucket.uri}/out") == []


def test_memory_caps_leave_room_for_the_store(bucket):
    """Its threads and buffers are no task's: what a disk needs is enough."""
    result = bf.map_records(
        fn,
        bf.records(range(100)),
        into=f"{bucket.uri}/out/",
        executor="processes",
        per_task=bf.Resources(memory="60MB"),
    )
    assert result.errors["error_type"].to_pylist() == ["ValueError", "ValueError"]
    assert len(result.values) == 98


def shouts(line):
    print("shout", line)
    return line


def test_what_is_printed_is_kept_at_the_end_of_a_run_behind_that_of_runs_before(bucket, executor):
    told = []
    for name in "ab":
        bucket.put(f"in/{name}.txt", f"{name}1\n{name}2\n")
        source = bf.read_text(f"{bucket.uri}/in/")
        bf.map_records(shouts, source, into=f"{bucket.uri}/out/", executor=executor, chunk="1MB")
        told += [f"[{bucket.uri}/in/{name}.txt] shout {name}{number}\n" for number in (1, 2)]
        assert bucket.get(".out_batchflow/output.log").decode() == "".join(told)
    bf.map_records(
        len, bf.read_text(f"{bucket.uri}/in/"), into=f"{bucket.uri}/out/", executor=executor, fresh=True
    )
    assert ".out_batchflow/output.log" not in bucket.names()
