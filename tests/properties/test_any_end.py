"""Whatever instant a run ends at, the same call afterwards gives what an undisturbed run gives."""

import shutil
from contextlib import suppress
from pathlib import Path

import pyarrow.parquet as pq
from crash import Crash, proved
from fake import FakeExecutor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seen import seen

import batchflow as bf

STEADY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def lose_some(data, folder):
    """Remove, or cut off, rows that are in no part yet, as a machine may that stops before they were synced."""
    for piece in sorted(folder.glob("**/pieces/*.piece"), key=Path.read_bytes):  # their names are random
        if data.draw(st.integers(0, 9)) == 0:
            piece.unlink()
        elif data.draw(st.integers(0, 9)) == 0:
            piece.write_bytes(piece.read_bytes()[:-1])


def odd_fails(n):
    if n % 7 == 3:
        raise ValueError(n)
    if n % 5 == 0:
        return None
    return {"n": n} if n < 60 else {"n": n, "late": str(n)}


def expected(size):
    good = [n for n in range(size) if n % 7 != 3 and n % 5]
    late = good and good[-1] >= 60
    return [{"n": n, **({"late": str(n) if n >= 60 else None} if late else {})} for n in good]


@given(
    st.data(),
    st.integers(0, 90),
    st.integers(1, 30),
    st.integers(1, 4),
    st.lists(st.integers(0, 40), max_size=6),
    st.sampled_from([200, 2000, "1MB"]),
    st.booleans(),
)
@settings(STEADY, max_examples=120, deadline=None)
def test_a_run_that_ends_at_any_instant_goes_on(
    tmp_path, fused, data, size, chunk, slots, ends, part_size, one_file
):
    shutil.rmtree(tmp_path, ignore_errors=True)
    tmp_path.mkdir()
    into = tmp_path / ("x.parquet" if one_file else "out/")

    def run():
        pick = lambda count: data.draw(st.integers(0, count - 1))
        return bf.map_records(
            odd_fails,
            bf.records(list(range(size))),
            into=f"{into}{'' if one_file else '/'}",
            chunk=chunk,
            part_size=part_size,
            executor=FakeExecutor(slots, pick),
        )

    for steps in ends:
        fused(steps)
        with suppress(Crash):
            run()
        lose_some(data, tmp_path)
    fused(10**9)
    result = run()
    assert pq.read_table(into, partitioning=None).to_pylist() == expected(size)
    assert result.errors["record"].to_pylist() == [n + 1 for n in range(size) if n % 7 == 3]
    assert (result.report.rows_in, result.report.rows_out) == (size, len(expected(size)))
    assert proved(into) == []
    again = run()
    assert "nothing to do: all of it was done before" in str(again.report)
    assert again.errors.equals(result.errors)


LINES = st.lists(st.sampled_from(["1", "22", "x", "", "4444", "5"]), max_size=40)


@given(
    st.data(),
    st.lists(LINES, min_size=1, max_size=4),
    st.lists(st.integers(0, 30), max_size=4),
    st.integers(1, 30),
)
@settings(STEADY, max_examples=120, deadline=None)
def test_files_that_come_later_are_added(tmp_path, fused, data, files, ends, chunk):
    """Text files, cut and packed, killed now and then, and with a new one before each run."""
    shutil.rmtree(tmp_path, ignore_errors=True)
    (tmp_path / "in").mkdir(parents=True)

    def run():
        pick = lambda count: data.draw(st.integers(0, count - 1))
        return bf.map_records(
            int,
            bf.read_text(tmp_path / "in"),
            into=f"{tmp_path}/out/",
            chunk=f"{chunk}B",
            executor=FakeExecutor(2, pick),
        )

    rows, bad = [], []
    for at, lines in enumerate(files):
        name = str(tmp_path / f"in/{at}.txt")
        with open(name, "w") as file:
            file.write("".join(f"{line}\n" for line in lines))
        rows += [int(line) for line in lines if line.isdigit()]
        bad += [(name, number) for number, line in enumerate(lines, 1) if not line.isdigit()]
        for steps in ends:
            fused(steps)
            with suppress(Crash):
                run()
        fused(10**9)
        result = run()
        assert seen(result).values == rows
        assert list(zip(*result.errors.select(["source", "record"]).to_pydict().values(), strict=True)) == bad
        assert proved(tmp_path / "out") == []
