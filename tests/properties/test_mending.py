"""What failed, tried again with a mended function, gives what that function would have given at once."""

import shutil
from contextlib import suppress

import pyarrow.parquet as pq
from crash import Crash, proved
from fake import FakeExecutor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seen import seen

import batchflow as bf

STEADY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def made(n):
    """Return what a record gives when it succeeds: no row, one, or many, and a column that only some have."""
    if n % 5 == 0:
        return []
    return [{"n": n, "k": k, **({"late": str(n)} if n % 11 == 0 else {})} for k in range(1 + n % 3 * (n % 2))]


def function(broken):
    """Return a function for which some records fail; which, a later one may say otherwise."""

    def fn(n):
        if n in broken:
            raise ValueError(n)
        return (row for row in made(n)) if n % 2 else (made(n) or [None])[0]

    return fn


def rows(table):
    """Return rows without what is not there; CSV shows that as empty text."""
    return [{name: cell for name, cell in row.items() if cell not in (None, "")} for row in table.to_pylist()]


def wanted(numbers):
    return [row for n in numbers for row in made(n)[: None if n % 2 else 1]]


SETS = st.sets(st.integers(0, 59), max_size=25)


@given(
    st.data(),
    st.integers(0, 60),
    st.integers(1, 20),
    SETS,
    SETS,
    SETS,
    st.sampled_from([300, "1MB"]),
    st.sampled_from(["out/", "x.parquet", "x.csv", "x.jsonl", "x.arrow"]),
)
@settings(STEADY, max_examples=150)
def test_mended_records_go_to_their_places(tmp_path, data, size, chunk, first, second, third, part_size, into):
    shutil.rmtree(tmp_path, ignore_errors=True)
    tmp_path.mkdir()
    pick = lambda count: data.draw(st.integers(0, count - 1))

    def job(broken, version=None):
        return bf.Job(
            function(broken),
            bf.records(list(range(size))),
            into=f"{tmp_path}/{into}",
            chunk=chunk,
            part_size=part_size,
            version=version,
            executor=FakeExecutor(2, pick),
        )

    result = job(first).run()
    left = first
    for at, broken in enumerate((second, third)):
        result = job(broken, f"{at}").retry_failed()
        left = left & broken
        bad = sorted(n for n in left if n < size)
        assert rows(seen(result).table) == wanted(n for n in range(size) if n not in left)
        assert result.errors["record"].to_pylist() == [n + 1 for n in bad]
        assert result.errors["payload"].to_pylist() == [str(n) for n in bad]
        assert result.errors["attempts"].to_pylist() == [at + 2] * len(bad)
        assert (result.report.rows_in, result.report.failed) == (size, len(bad))
        assert proved(tmp_path / into) == []


@given(st.data(), st.integers(1, 40), st.integers(1, 12), SETS, st.integers(0, 30), st.booleans())
@settings(STEADY, max_examples=100)
def test_what_was_lost_as_a_whole_is_tried_as_a_whole_and_any_instant_may_be_the_end(
    tmp_path, fused, data, size, chunk, broken, ends, per_batch
):
    shutil.rmtree(tmp_path, ignore_errors=True)
    (tmp_path / "in").mkdir(parents=True)
    for name, part in (("a", range(size // 2)), ("b", range(size // 2, size))):
        (tmp_path / "in" / f"{name}.txt").write_text("".join(f"{n}\n" for n in part))
    pick = lambda count: data.draw(st.integers(0, count - 1))

    def job(broken, version=None, isolate=None):
        def record(line):
            if int(line) in broken:
                raise ValueError(line)
            return {"n": int(line)}

        def batch(table):
            if broken.intersection(map(int, table["value"].to_pylist())):
                raise ValueError("some of these")
            return table.rename_columns(["n"])

        return bf.Job(
            batch if per_batch else record,
            bf.read_text(tmp_path / "in"),
            per="batch" if per_batch else "record",
            into=f"{tmp_path}/out/",
            chunk=f"{3 * chunk}B",
            version=version,
            isolate=isolate,
            executor=FakeExecutor(2, pick),
        )

    fused(10**9)
    job(broken, isolate=data.draw(st.booleans())).run()
    fused(ends)
    with suppress(Crash):
        job(set(), "2").retry_failed()
    fused(10**9)
    job(set(), "2").run()
    job(set(), "2").retry_failed()
    table = pq.read_table(tmp_path / "out")
    assert [int(n) for n in table["n"].to_pylist()] == list(range(size))
    assert proved(tmp_path / "out") == []


def test_a_retry_that_ends_at_any_instant_can_be_repeated(tmp_path, fused):
    """Even where nothing is left to be tried, only to be told."""

    def job(broken, version=None):
        def fn(n):
            if n in broken:
                raise ValueError(n)
            return {"n": n}

        return bf.Job(
            fn, bf.records(range(9)), into=f"{tmp_path}/out/", chunk=3, version=version, executor=FakeExecutor(1)
        )

    steps, ended = 0, False
    while not ended:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        fused(10**9)
        job({1, 5}).run()
        fused(steps)
        try:
            job(set(), "2").retry_failed()
            ended = True
        except Crash:
            fused(10**9)
            assert job(set(), "2").retry_failed().table["n"].to_pylist() == list(range(9))
        assert proved(tmp_path / "out") == []
        steps += 1
    assert steps > 5
