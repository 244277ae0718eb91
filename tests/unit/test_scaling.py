"""The laws of speed-up and their fits; samples of an input; what `scale` measures and names."""

import fcntl
import gzip
import json
import math
import os
import time
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

import batchflow as bf
from batchflow.cli import main
from batchflow.errors import UsageError
from batchflow.jobs.trials.sampling import PieceCursor, take_sample
from batchflow.jobs.trials.scaling_report import Scaling, ScalingPoint
from batchflow.jobs.trials.speedup import Bottleneck, SpeedupLaw, find, fit_amdahl, fit_usl
from batchflow.reporting.report import Report, SlowChunk

COUNTS = st.sets(st.integers(2, 64), min_size=2, max_size=6).map(sorted)
SHARE = st.floats(0, 0.5)


class TestLaws:
    @given(SHARE, COUNTS)
    def test_amdahl_finds_what_made_the_points(self, serial, counts):
        law = fit_amdahl([(n, 1 / (serial + (1 - serial) / n)) for n in [1, *counts]])
        assert law.contention == pytest.approx(serial, abs=1e-9)
        assert law.coherency == 0

    @given(SHARE, st.floats(0, 0.01), COUNTS)
    def test_the_universal_law_finds_what_made_the_points(self, contention, coherency, counts):
        true = SpeedupLaw(contention, coherency)
        law = fit_usl([(n, true.speedup(n)) for n in [1, *counts]])
        assert law == pytest.approx(true, abs=1e-6)

    @given(
        st.lists(
            st.tuples(st.integers(2, 64), st.floats(0.1, 64)), min_size=2, max_size=8, unique_by=lambda one: one[0]
        )
    )
    def test_no_law_has_a_negative_parameter_and_none_fits_better(self, points):
        law = fit_usl(points)
        assert 0 <= law.contention <= 1
        assert law.coherency >= 0

        def badness(contention, coherency):
            return sum((n / s - 1 - contention * (n - 1) - coherency * n * (n - 1)) ** 2 for n, s in points)

        best = badness(*law)
        for step in (1e-3, 1e-2, 0.1):
            for one, other in ((step, 0), (-step, 0), (0, step), (0, -step), (step, -step), (-step, step)):
                a, b = law.contention + one, law.coherency + other
                if 0 <= a <= 1 and b >= 0:
                    assert badness(a, b) >= best * (1 - 1e-6) - 1e-9 or law.contention == 1

    def test_where_it_peaks_and_what_it_never_exceeds(self):
        assert (SpeedupLaw(0.1).peak, SpeedupLaw(0.1).limit) == (math.inf, pytest.approx(10))
        assert (SpeedupLaw(0, 0.0001).peak, round(SpeedupLaw(0, 0.0001).limit, 1)) == (pytest.approx(100), 50.3)
        assert SpeedupLaw(0.0).limit == math.inf
        assert SpeedupLaw(0.0).speedup(7) == 7

    def test_too_few_points_make_no_law(self):
        assert fit_amdahl([(1, 1.0)]) is None
        assert fit_usl([(1, 1.0), (2, 1.9)]) is None


def drawn(source, wanted, pieces, **options):
    inputs = source.inputs()
    return take_sample(source, inputs, wanted, pieces, **options)


class TestSample:
    @given(st.integers(1, 5000), st.integers(1, 500), st.integers(1, 50))
    def test_pieces_are_spread_over_the_whole_input_and_never_overlap(self, size, wanted, pieces):
        wanted = min(wanted, size)
        sample = drawn(bf.records(range(size)), wanted, pieces)
        taken = [number for piece in sample.pieces for number in piece.data]
        assert taken == sorted(set(taken))
        assert all(
            list(piece.data) == list(range(*piece.key[1:], piece.key[1] + len(piece.data)))
            for piece in sample.pieces
        )
        count = min(pieces, wanted)
        assert len(sample.pieces) <= pieces + pieces // 2 + 2
        if size >= 10 * wanted and wanted >= 10 * pieces:
            for part in range(count):  # each part of the input has its piece, or half of a neighbour's
                first, last = part * size / count - size / count, (part + 2) * size / count
                assert any(first <= number <= last for number in taken)
            assert 0.5 * wanted <= len(taken) <= 1.6 * wanted

    def test_the_same_input_gives_the_same_sample(self):
        source = bf.records(range(1000))
        assert drawn(source, 100, 10).pieces == drawn(source, 100, 10).pieces

    def test_it_holds_whole_records_of_files_from_end_to_end(self, tmp_path):
        for name in range(4):
            (tmp_path / f"{name}.txt").write_text("".join(f"{name}-{line:05}\n" for line in range(2500)))
        source = bf.read_text(tmp_path)
        sample = drawn(source, 8000, 40)
        names = {piece.chunk.spans[0].input.uri for piece in sample.pieces}
        assert len(names) == 4
        assert 0.06 < sample.share < 0.14
        lines = [line for piece in sample.pieces for block in source.read(piece.chunk) for line in block.rows]
        assert len(lines) == len(set(lines))
        assert all(len(line) == 7 for line in lines)
        assert 600 < len(lines) < 1400

    def test_files_of_a_few_bytes_count_as_what_they_cost(self, tmp_path):
        for name in range(300):
            (tmp_path / f"{name:03}.txt").write_text("x\n")
        sample = drawn(bf.read_text(tmp_path), 10, 10)
        taken = [int(piece.chunk.spans[0].input.uri[-7:-4]) for piece in sample.pieces]
        assert 8 <= len(taken) <= 12
        assert taken == sorted(taken)
        assert max(taken) - min(taken) > 200

    def test_a_file_that_cannot_be_cut_is_taken_whole_or_not(self, tmp_path):
        (tmp_path / "a.txt").write_text("x\n" * 200_000)
        (tmp_path / "b.gz").write_bytes(gzip.compress(os.urandom(200_000)))
        sample = drawn(bf.read_text(tmp_path), 1000, 10)
        assert [piece.chunk.spans[0].input.uri[-4:] for piece in sample.pieces].count("b.gz"[-4:]) == 1
        assert len(sample.pieces) >= 3

    def test_a_generator_is_left_alone(self):
        with pytest.raises(UsageError, match="come from a generator"):
            drawn(bf.records(iter([1])), 1, 1)

    def test_pieces_may_come_in_any_order(self):
        sample = drawn(bf.records(range(1000)), 100, 10)
        cursor = PieceCursor(sample.pieces[::-1])
        assert cursor.total == sample.weight
        assert cursor.frontier == sample.pieces[0].key
        assert [cursor.draw(1) for _ in sample.pieces] == list(sample.pieces[::-1])
        assert cursor.draw(1) is None
        assert cursor.frontier > sample.pieces[-1].key


def burn(_):
    end = time.process_time() + 0.02
    while time.process_time() < end:
        pass


def sleep(number):
    time.sleep(0.05)
    return number


def locked(path):
    with open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        time.sleep(0.02)


class TestScale:
    def test_a_function_that_sleeps_scales_ideally(self):
        scaling = bf.Job(sleep, bf.records(range(28)), executor="processes").scale((1, 2, 4), rounds=1)
        assert [point.workers for point in scaling.points] == [1, 2, 4]
        assert all(point.efficiency > 0.7 for point in scaling.points)
        assert scaling.usl.contention < 0.2
        assert scaling.best.workers == 4
        assert scaling.bottleneck.name in ("", "start-up")
        assert "concurrency=" in scaling.advice
        lines = str(scaling).splitlines()
        assert lines[0].startswith("workers  seconds  speed-up")
        assert lines[3].endswith(f"beyond the {scaling.cores} cores") is (scaling.cores < 4)

    def test_one_behind_a_lock_does_not_and_more_workers_do_not_pay(self, tmp_path):
        (tmp_path / "lock").touch()
        job = bf.Job(locked, bf.records([str(tmp_path / "lock")] * 40_000), executor="processes")
        scaling = job.scale((2,), sample=40, rounds=1)  # so that the start counts for little
        assert [point.workers for point in scaling.points] == [1, 2]
        assert scaling.points[1].speedup < 1.5
        assert scaling.bottleneck.name == "function"
        assert "wait for each other" in scaling.bottleneck.why
        assert scaling.best.workers == 1
        assert "more workers will not pay, never more than 1." in scaling.advice

    def test_a_huge_file_that_cannot_be_cut_is_named(self, tmp_path, warm):
        (tmp_path / "huge.gz").write_bytes(gzip.compress(b"x\n" * 40))
        scaling = bf.Job(burn, bf.read_text(tmp_path), executor=warm("processes")).scale((1, 2), rounds=1)
        assert scaling.bottleneck.name == "input"
        assert "huge.gz cannot be cut" in scaling.bottleneck.why

    def test_a_dear_chunk_at_the_end_is_told_to_be_splitting(self, warm):
        job = bf.Job(time.sleep, bf.records([0.05, 0.05, 0.4]), executor=warm("processes"), chunk=1)
        scaling = job.scale((1, 2), rounds=1)
        assert scaling.bottleneck.name == "splitting"
        assert "too few or too uneven" in scaling.bottleneck.why

    def test_a_job_that_is_over_at_once_is_told_to_be_start_up(self):
        scaling = bf.Job(str, bf.records(range(100)), executor="processes").scale((1, 2), rounds=1)
        assert scaling.bottleneck.name == "start-up"
        assert 'executor="serial"' in scaling.advice

    def test_the_breakdown_is_that_of_the_report(self):
        scaling = bf.Job(sleep, bf.records(range(8)), executor="processes").scale((1, 2), rounds=2)
        for point in scaling.points:
            assert point.fastest <= point.seconds == point.report.seconds <= point.slowest
            assert sum(point.report.time.values()) == pytest.approx(point.workers * point.seconds, rel=0.02)
            assert point.as_dict()["time"] == point.report.time

    def test_a_sample_of_records_is_measured_and_the_output_left_alone(self, tmp_path):
        (tmp_path / "in.txt").write_text("x\n" * 20_000)
        job = bf.Job(
            len, bf.read_text(tmp_path / "in.txt"), into=str(tmp_path / "out/") + "/", executor="processes"
        )
        scaling = job.scale((1,), sample=1000, rounds=1)
        assert 0.03 < scaling.share < 0.08
        assert 600 <= scaling.points[0].report.rows_in <= 1600
        assert sorted(os.listdir(tmp_path)) == ["in.txt"]
        assert scaling.law is None
        assert "measure more numbers of workers" in scaling.advice

    @pytest.mark.parametrize("sample", [0.05, "0.05", "5%", 50])
    def test_a_share_is_written_as_people_do(self, sample):
        job = bf.Job(str, bf.records(range(1000)), executor="serial")
        assert job.scale((1,), sample=sample, rounds=1).share == pytest.approx(0.05, abs=0.02)

    def test_an_executor_of_the_user_is_used_as_it_is(self):
        scaling = bf.Job(str, bf.records(range(100)), executor=bf.Serial()).scale((1, 2), rounds=1)
        assert [point.workers for point in scaling.points] == [1]
        assert "2 workers were not measured: serial has room for 1" in scaling.notes

    @pytest.mark.parametrize(("busy", "told"), [(0.1, False), (99.0, True)])
    def test_a_busy_machine_is_told(self, busy, told, monkeypatch):
        monkeypatch.setattr("batchflow.jobs.trials.scale.busy_cores", lambda _: busy)
        scaling = bf.Job(str, bf.records(range(10)), executor=bf.Serial()).scale((1,), rounds=1)
        assert ("the machine was busy before (99.0 of " in str(scaling)) is told

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"workers": (0,)}, "give whole numbers of workers"),
            ({"workers": ("x",)}, "give whole numbers of workers"),
            ({"sample": "0"}, "a number of records, or a share"),
            ({"sample": "200%"}, "a number of records, or a share"),
            ({"sample": "many"}, "a number of records, or a share"),
            ({"sample": 1.5}, "a number of records, or a share"),
            ({"sample": "1.01"}, "a number of records, or a share"),
            ({"sample": -0.5}, "a number of records, or a share"),
            ({"rounds": 0}, "at least one is needed"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, options, words):
        with pytest.raises(UsageError, match=words):
            bf.Job(str, bf.records(range(10))).scale(**options)

    def test_a_generator_is_refused(self):
        with pytest.raises(UsageError, match="gives each of them once"):
            bf.Job(str, bf.records(iter(range(10)))).scale()


def work(slots=1, seconds=10.0, cpu=0.0, driver=(0.0, 0.0), slowest=(), task_seconds=0.0, **time_):
    spent = dict.fromkeys(("start", "read", "call", "convert", "write", "other", "wait"), 0.0) | time_
    return Report(
        slots=slots,
        seconds=seconds,
        cpu_seconds=cpu,
        time=spent,
        slowest=slowest,
        task_seconds=task_seconds,
        driver={"splitting": driver[0], "combining": driver[1]},
    )


@pytest.mark.parametrize(
    ("many", "name"),
    [
        (work(2, 5.0, cpu=10, call=10), ""),
        (work(2, 10.0, cpu=10, call=20), "function"),
        (work(2, 10.0, cpu=20, call=20), "memory bandwidth"),
        (work(2, 8.0, cpu=10, call=10, read=6), "input"),
        (work(2, 8.0, cpu=10, call=10, wait=6, slowest=(SlowChunk("a.gz", 0, None, 8, uncut=True),)), "input"),
        (work(2, 8.0, cpu=10, call=10, wait=6, driver=(5, 1)), "splitting"),
        (work(2, 8.0, cpu=10, call=10, wait=6, driver=(1, 5)), "combining"),
        (work(2, 8.0, cpu=10, call=10, wait=6), "splitting"),
        (work(2, 8.0, cpu=10, call=10, write=6), "combining"),
        (work(2, 8.0, cpu=10, call=10, other=6), "splitting"),
        (work(2, 8.0, cpu=10, call=10, start=6), "start-up"),
    ],
)
def test_what_most_time_is_lost_to_has_a_name(many, name):
    assert find(work(cpu=10, call=10), many, 0.0, 1.0).name == name


@pytest.mark.parametrize(
    ("share", "told"),
    [
        (1.0, '1 worker, chunk= left out, executor="serial"; it is over before workers have started'),
        (0.01, '2 workers, chunk= left out, executor="processes"; more workers may pay: measure them'),
    ],
)
def test_workers_that_start_later_than_the_job_ends_pay_in_no_number(share, told):
    one, two = work(cpu=0.01, call=0.01, task_seconds=0.01), work(2)
    points = (
        ScalingPoint(1, 0.01, 0.01, 0.01, 1.0, False, one),
        ScalingPoint(2, 0.006, 0.006, 0.006, 1.7, False, two),
    )
    law = fit_amdahl([(1, 1.0), (2, 1.7)])
    scaling = Scaling(points, 4, share, 1, 0.1, law, None, Bottleneck("start-up", 0.9, ""))
    assert scaling.advice == told


def test_start_up_counts_against_the_whole_job_and_not_its_sample():
    one, many = work(cpu=10, call=10), work(2, 5.0, cpu=10, call=10)
    assert find(one, many, 2.0, 1.0).name == "start-up"
    assert find(one, many, 2.0, 0.01).name == ""


class TestCommand:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch):
        (tmp_path / "steps.py").write_text(
            "import time\n\ndef slow(line):\n    time.sleep(0.01)\n    return len(line)\n"
        )
        (tmp_path / "in.txt").write_text("x\n" * 120)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    def test_it_prints_and_draws_the_curve(self, folder, capsys):
        arguments = [
            "scale",
            "steps.py:slow",
            "in.txt",
            "--workers",
            "1,2",
            "--rounds",
            "1",
            "--plot",
            "scale.svg",
        ]
        assert main([*arguments, "--executor", "processes"]) == 0
        out, err = capsys.readouterr()
        assert "bottleneck: " in out
        assert "advice: 2 workers" in out
        assert "1 worker, round 1 of 1: " in err
        root = ET.fromstring((folder / "scale.svg").read_text())
        assert len(root.findall("{*}circle")) == 3  # two points, one of the legend
        assert {"ideal", "measured", "Amdahl's law"} <= {text.text for text in root.findall("{*}text")}

    def test_it_tells_machines_in_json(self, capsys):
        arguments = ["scale", "steps.py:slow", "in.txt", "--workers", "2", "--rounds", "1", "--json", "--quiet"]
        assert main([*arguments, "--executor", "processes", "--sample", "50%"]) == 0
        out, err = capsys.readouterr()
        told = json.loads(out)
        assert err == ""
        assert [point["workers"] for point in told["points"]] == [1, 2]
        assert told["usl"] is None
        assert 0 <= told["amdahl"]["contention"] <= 1

    def test_numbers_that_are_none(self, capsys):
        assert main(["scale", "steps.py:slow", "in.txt", "--workers", "1,many"]) == 2
        assert "give whole numbers of workers" in capsys.readouterr().err
