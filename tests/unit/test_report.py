"""What a report says: the workers' time adds up, the summary is short, advice rests on what was measured."""

import cProfile
import gzip
import os
import pstats
import time
from itertools import count

import pytest

import batchflow as bf
from batchflow.core.outcomes import Stats
from batchflow.io.sources.text import TextSource
from batchflow.reporting import advice
from batchflow.reporting import utilization as occupancy
from batchflow.reporting.report import Report
from batchflow.reporting.utilization import LOSSES, SlotUtilization

BURNT = 0.04


def burn(seconds):
    """Compute for so long, by the clock of this process, and tell how long it took."""
    began, end = time.perf_counter(), time.process_time() + seconds
    while time.process_time() < end:
        pass
    return time.perf_counter() - began


class Clock:
    """A clock that a test sets."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(occupancy.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(occupancy.time, "time", lambda: 1e9 + self.now)


class TestTime:
    def test_each_second_of_each_slot_is_counted_once(self, monkeypatch):
        clock = Clock(monkeypatch)
        spent = SlotUtilization()
        clock.now = 1.0
        spent.resize(2)
        clock.now = 6.0
        spent.task(Stats("a", 1e9 + 2, 4, read=1, call=2, convert=0.5, write=0.25))
        clock.now = 10.0
        spent.task(Stats("b", 1e9 + 3, 6, call=6))
        spent.combined(Stats("a", 1e9 + 8, 1), part=True)
        assert spent.losses() == {
            "start": 2 + 3,
            "read": 1,
            "call": 8,
            "convert": 0.5,
            "write": 1.25,
            "other": 0.25,
            "wait": 4,
        }

    def test_slots_count_for_as_long_as_they_are_there(self, monkeypatch):
        clock = Clock(monkeypatch)
        spent = SlotUtilization()
        spent.resize(1)
        clock.now = 10.0
        spent.resize(3)
        clock.now = 12.0
        assert spent.losses() == dict.fromkeys(LOSSES, 0) | {"wait": 10 + 6}

    def test_a_worker_whose_clock_is_wrong_began_when_its_task_can_have(self, monkeypatch):
        clock = Clock(monkeypatch)
        spent = SlotUtilization()
        spent.resize(1)
        clock.now = 5.0
        spent.task(Stats("elsewhere", 1e9 - 3600, 2, call=2))
        assert spent.losses()["start"] == 3

    def test_on_every_executor_it_adds_up_and_agrees_with_what_the_function_measured(self, executor, tmp_path):
        (tmp_path / "in.txt").write_text("x\n" * 20)
        result = bf.map_records(lambda _: burn(BURNT / 2), bf.read_text(tmp_path / "in.txt"), executor=executor)
        report = result.report
        assert tuple(report.time) == LOSSES
        assert sum(report.time.values()) == pytest.approx(report.slots * report.seconds, rel=0.02)
        assert report.time["call"] == pytest.approx(sum(result.values), rel=0.05)
        assert report.cpu_seconds >= 10 * BURNT * 0.99
        assert report.phases == {name: report.time[name] for name in ("read", "call", "convert", "write")}

    def test_it_agrees_with_the_profile(self, tmp_path):
        def convertible(_):
            burn(0.01)
            return {"n": 1}

        (tmp_path / "in.txt").write_text("x\n" * 20)
        profile = cProfile.Profile()
        source = SlowDisk((str(tmp_path / "in.txt"),))
        report = profile.runcall(
            bf.map_records, convertible, source, executor="serial", into=tmp_path / "out/"
        ).report
        seen = {name: spent for (_, _, name), (_, _, _, spent, _) in pstats.Stats(profile).stats.items()}
        assert report.time["call"] == pytest.approx(seen["convertible"], rel=0.1)
        slept = pstats.Stats(profile).stats["~", 0, "<built-in method time.sleep>"][3]
        assert slept <= report.time["read"] < slept + 0.2
        assert report.time["start"] + report.time["wait"] < report.seconds - slept - seen["convertible"] + 0.01

    def test_tasks_that_broke_off_are_not_taken_for_waiting(self, remote):
        report = bf.map_records(lambda _: time.sleep(60), bf.records([1]), executor=remote, timeout=0.3).report
        assert report.failed == 1
        assert report.time["other"] >= 0.3

    def test_nor_is_what_a_worker_did_before_it_died(self, warm):
        def die(_):
            burn(0.2)
            os._exit(7)

        report = bf.map_records(die, bf.records([1]), executor=warm("processes")).report
        assert report.time["other"] >= 2 * 0.19  # it is tried once more

    def test_the_driver_is_told_of_too(self, tmp_path):
        report = bf.map_records(str, bf.records(burn(0.02) for _ in range(10)), executor="serial").report
        assert report.driver["splitting"] >= 0.19
        report = bf.map_records(str, bf.records(range(10)), executor="serial", into=tmp_path / "out/").report
        assert report.driver["combining"] > 0

    def test_what_puts_results_together_counts(self):
        def total(table):
            burn(BURNT)
            return table.group_by([]).aggregate([("value", "sum")]).rename_columns(["value"])

        result = bf.map_records(int, bf.records(range(4)), combine=total, chunk=1, executor="serial")
        assert result.table.to_pylist() == [{"value": 6}]
        assert result.report.time["call"] >= 4.9 * BURNT  # four chunks, and a merge at least


def fail(number):
    if number < 6:
        raise (ValueError, KeyError, OSError, TypeError)[max(0, number - 2)](f"no {number}\n" * 100)
    return {"n": number}


def fail_always(number):
    raise OSError(number)


class TestSummary:
    @pytest.mark.parametrize(("version", "next_one"), [(None, "2"), ("2", "3"), ("v 1", "v 1-2")])
    def test_the_next_version_is_a_new_one(self, tmp_path, version, next_one):
        result = bf.map_records(
            fail, bf.records(range(50)), into=tmp_path / "out/", executor="serial", version=version
        )
        assert str(result).endswith(f"result.retry_failed(fail, version={next_one!r})")

    def test_the_three_commonest_errors_and_what_to_do_next(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        result = bf.map_records(fail, bf.records(range(50)), into="out/", executor="serial")
        lines = str(result.report).splitlines()
        assert str(result) == str(result.report)
        assert repr(result) == f"<Result in {tmp_path}/out: {lines[0]}>"
        assert lines[0] == "50 records in, 44 rows out, 6 failed, 0 retries"
        assert lines[5].endswith(" (and 1 more kind of errors)")
        assert [line[:40] for line in lines[3:6]] == [
            "      3 x ValueError in call: records, r",
            "      1 x KeyError in call: records, rec",
            "      1 x OSError in call: records, reco",
        ]
        assert all(len(line) < 400 for line in lines)
        assert lines[6:] == [
            "output in out/; errors and report in .out_batchflow/",
            "next: result.errors lists them; once fixed, result.retry_failed(fail, version='2')",
        ]
        assert (tmp_path / ".out_batchflow/errors.pq").exists()
        assert (tmp_path / ".out_batchflow/report.json").exists()
        assert (result.report.kinds, len(result.report.commonest)) == (4, 3)
        again = str(
            bf.map_records(fail, bf.records(range(50)), into="out/", executor="serial").report
        ).splitlines()
        assert again == [lines[0], "nothing to do: all of it was done before", *lines[3:6], lines[7]]

    def test_the_next_version_is_a_new_one_where_the_last_run_named_none(self, tmp_path):
        for version in ("2", None):
            result = bf.map_records(
                fail, bf.records(range(50)), into=tmp_path / "out/", executor="serial", version=version
            )
            assert str(result).endswith("result.retry_failed(fail, version='3')")
        with pytest.raises(bf.errors.ChangedError, match=r"version='3' \(--version 3\), to keep what is done"):
            bf.map_records(fail_always, bf.records(range(50)), into=tmp_path / "out/", executor="serial")

    def test_a_retry_tells_of_what_is_left(self, tmp_path):
        def mended(number):
            return fail(number) if number == 2 else {"n": number}

        bf.map_records(fail, bf.records(range(50)), into=tmp_path / "out/", executor="serial")
        job = bf.Job(
            mended, bf.records(range(50)), into=str(tmp_path / "out/") + "/", executor="serial", version="2"
        )
        report = job.retry_failed().report
        assert [(kind.error_type, kind.rows) for kind in report.commonest] == [("ValueError", 1)]
        assert (report.rows_in, report.before) == (50, 44)
        assert str(report).splitlines()[1].startswith("44 of them done before; ")

    def test_a_retry_of_a_whole_chunk_tells_of_its_records(self, tmp_path):
        def mended(number):
            return {"n": number}

        fresh = {
            "per": "record",
            "into": str(tmp_path / "out/") + "/",
            "executor": "serial",
            "chunk": 10,
            "isolate": False,
        }
        bf.Job(fail_always, bf.records(range(50)), **fresh).run()
        report = bf.Job(mended, bf.records(range(50)), **fresh, version="2").retry_failed().report
        assert (report.rows_in, report.rows_out, report.failed, report.before) == (50, 50, 0, 0)

    def test_it_has_under_twelve_lines_whatever_happened(self):
        kinds = bf.map_records(fail, bf.records(range(50)), executor="serial").report.commonest
        everything = Report(
            "ray",
            2,
            "/tmp/logs",
            rows_in=9,
            before=3,
            failed=6,
            seconds=9.0,
            time=dict.fromkeys(LOSSES, 1.0),
            commonest=kinds,
            kinds=9,
            advice=("one", "two", "three"),
            output="/out/",
            meta="/.out_batchflow/",
        )
        assert len(str(everything).splitlines()) == 11

    @pytest.mark.parametrize(
        ("over_one", "told"),
        [
            (None, "1.5 workers' worth on 2 (ray), 0 chunks"),
            (1.23, "1.5 workers' worth on 2 (ray), 1.2 times as fast as one alone, 0 chunks"),
        ],
    )
    def test_how_much_faster_than_one_worker_where_that_was_seen(self, over_one, told):
        assert told in str(Report("ray", 2, seconds=2.0, task_seconds=3.0, over_one=over_one))

    def test_in_memory_it_tells_where_the_failures_are(self):
        report = bf.map_records(fail, bf.records(range(50)), executor="serial").report
        assert str(report).endswith(
            "next: result.errors lists them; with into= they are kept, and result.retry_failed() tries them again"
        )

    def test_kinds_that_never_end_do_not_fill_the_memory(self):
        numbers = count()

        def different(_):
            raise type(f"E{next(numbers)}", (Exception,), {})

        report = bf.map_records(different, bf.records(range(1100)), executor="serial", max_errors=1100).report
        assert (report.failed, report.kinds) == (1100, 1000)


class SlowDisk(TextSource):
    """Text files on a disk that takes its time."""

    def fine_blocks(self, span, data):
        time.sleep(0.3)
        yield from super().fine_blocks(span, data)


def told(*words, report):
    assert len(report.advice) == 1, report
    assert all(word in report.advice[0] for word in words), report.advice
    assert f"advice: {report.advice[0]}" in str(report)


@pytest.fixture
def pool(warm):
    return warm("processes")


class TestAdvice:
    def test_a_healthy_job_hears_none(self, pool):
        report = bf.map_records(lambda _: burn(0.05), bf.records(range(46)), executor=pool).report
        assert report.seconds > advice.WORTH_SECONDS
        assert report.advice == ()

    def test_a_short_job_hears_none(self, pool):
        assert bf.map_records(str, bf.records(range(300)), chunk=1, executor=pool).report.advice == ()

    @pytest.mark.parametrize(
        ("count", "right"), [(advice.MANY_FAILED, 0), (advice.MANY_FAILED, 1), (advice.MANY_FAILED - 1, 0)]
    )
    def test_a_mistake_that_every_record_meets(self, monkeypatch, count, right):
        monkeypatch.setattr(advice, "WORTH_SECONDS", 0)
        source = bf.records([*range(1, count + 1 - right), *[0] * right])
        report = bf.map_records(lambda n: 1 if n == 0 else n["prise"], source, executor="serial").report
        if (count, right) == (advice.MANY_FAILED, 0):
            told("every record failed in the same way", "max_errors=", "batchflow plan", report=report)
        else:
            assert report.advice == ()

    def test_chunks_that_are_too_small(self, pool, monkeypatch):
        monkeypatch.setattr(advice, "WORTH_SECONDS", 0.1)
        report = bf.map_records(str, bf.records(range(3000)), chunk=1, executor=pool).report
        told("too small", "of the workers' time is lost", "chunk=", report=report)
        assert int(report.advice[0].partition("chunk=")[2].split()[0]) > 100
        better = bf.map_records(str, bf.records(range(3000)), chunk=500, executor=pool).report
        assert better.advice == ()

    @pytest.mark.parametrize(("per", "cure"), [("record", "concurrency="), ("batch", "cpus=0")])
    def test_calls_that_only_wait(self, pool, per, cure):
        job = bf.Job(
            lambda given: time.sleep(0.6) or given, bf.records([1, 2, 3, 4]), per=per, chunk=1, executor=pool
        )
        told("calls waited for", cure, report=job.run().report)

    def test_calls_that_wait_side_by_side_hear_nothing(self, pool):
        job = bf.Job(lambda given: time.sleep(0.3) or given, bf.records(range(16)), concurrency=2, executor=pool)
        assert job.run().report.advice == ()

    def test_a_file_that_cannot_be_cut(self, pool, tmp_path):
        (tmp_path / "a.gz").write_bytes(gzip.compress(b"x\n" * 24))
        (tmp_path / "b.txt").write_text("x\n" * 2)
        report = bf.map_records(lambda _: burn(0.05), bf.read_text(tmp_path), executor=pool).report
        told("a.gz cannot be cut", "store it in several files", report=report)

    def test_workers_that_wait_for_their_input(self, pool, tmp_path):
        for name in range(8):
            (tmp_path / f"{name}.txt").write_text("x\n" * 1000)
        source = SlowDisk((str(tmp_path),))
        report = bf.map_records(str, source, executor=pool, chunk=1000).report
        told("workers waited for their input", report=report)

    def test_memory_near_the_cap(self, pool):
        def fill(size):
            return len(b"x" * size)

        def run(size):
            with bf.Processes(workers=1) as fresh:  # the peak is that of the process so far
                return bf.map_records(
                    fill, bf.records([size]), per_task=bf.Resources(memory="400MB"), executor=fresh
                ).report

        assert run(10_000_000).advice == ()
        report = run(385_000_000)
        assert report.failed == 0
        told("400 MB", "raise per_task memory", report=report)
