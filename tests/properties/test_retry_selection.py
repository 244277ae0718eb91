"""What failed is read in one go: any input, any cut, any mix of failures gives what a whole run would have given."""

import gzip
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
from crash import proved
from fake import FakeExecutor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import batchflow as bf
from batchflow.core.work import Task

STEADY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
SETS = st.sets(st.integers(0, 39), max_size=40)


def rows_of(n):
    """Return what a record gives: nothing, one row or many."""
    return [{"n": n, "k": k} for k in range((0, 1, 1, 3)[n % 4])]


def write(folder, kind, size, blank):
    """Write numbers into some files; blank lines between them are no records."""
    folder.mkdir(parents=True)
    for name, numbers in zip("abc", (range(size)[at : at + 17] for at in range(0, size, 17)), strict=False):
        if kind == "parquet":
            pq.write_table(pa.table({"n": list(numbers)}), folder / f"{name}.parquet", row_group_size=5)
            continue
        text = "".join(f'{{"n": {n}}}\n' + ("\n" if blank and n % 3 == 0 else "") for n in numbers).encode()
        suffix, data = (".jsonl.gz", gzip.compress(text)) if kind == "gz" else (".jsonl", text)
        (folder / f"{name}{suffix}").write_bytes(data)
    return bf.read_parquet(folder) if kind == "parquet" else bf.read_json(folder)


def function(per, bad, called):
    def record(one):
        called.append(one["n"])
        if one["n"] in bad:
            raise ValueError(one["n"])
        return iter(rows_of(one["n"]))

    def batch(table):
        numbers = table["n"].to_pylist()
        called.extend(numbers)
        if bad.intersection(numbers):
            raise ValueError("some of these")
        rows = [row for n in numbers for row in rows_of(n)]
        return {"n": [row["n"] for row in rows], "k": [row["k"] for row in rows]} if rows else None

    return batch if per == "batch" else record


@given(
    data=st.data(),
    kind=st.sampled_from(["json", "gz", "parquet", "memory", "table"]),
    size=st.integers(1, 40),
    chunk=st.sampled_from(["20B", "70B", "9kB"]),
    blank=st.booleans(),
    per=st.sampled_from(["record", "batch"]),
    first=SETS,
    second=SETS,
    deaths=st.integers(0, 3),
    into=st.sampled_from(["out/", "x.parquet", "x.csv", "x.arrow"]),
)
@settings(STEADY, max_examples=250)
def test_retry_gives_what_a_whole_run_gives(
    tmp_path, data, kind, size, chunk, blank, per, first, second, deaths, into
):
    shutil.rmtree(tmp_path, ignore_errors=True)
    source = write(tmp_path / "in", kind, size, blank) if kind in ("json", "gz", "parquet") else None
    if source is None:
        records = [{"n": n} for n in range(size)]
        if kind == "table":
            records = pa.table({"n": range(size)})
        source, chunk = bf.records(records), {"20B": 1, "70B": 7, "9kB": 100}[chunk]
    pick = lambda count: data.draw(st.integers(0, count - 1))
    left = iter(range(deaths))

    def job(bad, version, called, dies=lambda task: False):
        return bf.Job(
            function(per, bad, called),
            source,
            per=per,
            into=f"{tmp_path}/{into}",
            chunk=chunk,
            version=version,
            executor=FakeExecutor(2, pick, dies),
        )

    job(first, "1", []).run()
    called = []
    dies = lambda task: isinstance(task, Task) and next(left, None) is not None
    result = job(second, "2", called, dies).retry_failed()
    failed = [n for n in range(size) if n in first & second]
    missing = result.errors.num_rows - len(failed)  # of single records that were blamed for a death
    assert 0 <= missing <= deaths
    if not deaths:
        assert set(called) <= first
        assert len(called) == len(set(called)) or per == "batch"
        assert [eval(text)["n"] for text in result.errors["payload"].to_pylist()] == failed
    result = job(set(), "3", []).retry_failed()
    assert result.errors.num_rows == 0
    assert [row["n"] for row in result.values] == [row["n"] for n in range(size) for row in rows_of(n)]
    assert proved(tmp_path / into) == []


def test_retry_reads_each_chunk_once_for_all_its_failures(tmp_path):
    """Half of the records in the worst order, of which each would be a task of its own."""
    (tmp_path / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(5000)))

    def job(bad, version):
        executor = FakeExecutor(2)
        fn = function("record", bad, [])
        return executor, bf.Job(
            fn,
            bf.read_json(tmp_path / "in.jsonl"),
            into=f"{tmp_path}/out/",
            chunk="10kB",
            version=version,
            executor=executor,
        )

    whole, first = job(set(range(1, 5000, 2)), "1")
    first.run()
    again, second = job(set(), "2")
    assert second.retry_failed().report.failed == 0
    tasks = [sum(isinstance(work, Task) for work in executor.performed) for executor in (whole, again)]
    assert tasks[1] <= tasks[0]


def test_retry_counts_its_progress_in_records(tmp_path):
    from batchflow.events import JobStarted, TaskStarted

    (tmp_path / "in.txt").write_text("".join(f"{n if n % 3 else 'x'}\n" for n in range(300)))
    heard = []
    job = bf.Job(
        int,
        bf.read_text(tmp_path / "in.txt"),
        into=f"{tmp_path}/out/",
        chunk="100B",
        executor="serial",
        listeners=[heard.append],
    )
    job.run()
    heard.clear()
    job.retry_failed()
    (started,) = [event for event in heard if isinstance(event, JobStarted)]
    assert (started.unit, started.total) == ("records", 100)
    assert sum(event.weight for event in heard if isinstance(event, TaskStarted)) == 100
