"""What progress counts: files and calls where a person would, bytes else."""

import re

import pytest

import batchflow as bf
from batchflow.reporting.progress.counters import JobProgress


class Watched:
    """Counts a job, and keeps the text of each line that differs."""

    def __init__(self):
        self.count = JobProgress()
        self.lines = []

    def __call__(self, event):
        self.count(event)
        text = re.sub(r" \[.*", "", self.count.line.text)
        if not self.lines or self.lines[-1] != text:
            self.lines.append(text)


def watched(fn, source, **options):
    watch = Watched()
    bf.Job(fn, source, progress=False, listeners=[watch], **options).run()
    return watch


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(5):
        (tmp_path / f"in/{number}.txt").write_text(f"{number}\n" * (1 + 100 * number))
    return tmp_path


def test_files_are_counted_as_files(folder, executor):
    lines = watched(lambda file: file.size, bf.files(folder / "in"), executor=executor, chunk=2).lines
    assert lines[0] == "0/5 files"
    assert lines[-1] == "5/5 files"
    assert set(lines) <= {f"{number}/5 files" for number in range(6)}


def test_files_that_fail_are_counted_once(folder):
    def fails(file):
        if file.path.endswith("3.txt"):
            raise ValueError
        return 1

    watch = watched(fails, bf.files(folder / "in"), executor="serial", chunk=5)
    assert watch.lines[-1] == "5/5 files"
    assert ", 1 failed" in watch.count.line.text


def test_files_of_an_earlier_run_are_counted(folder):
    watched(lambda file: file.size, bf.files(folder / "in"), into=f"{folder}/out/", executor="serial", chunk=1)
    (folder / "in/5.txt").write_text("5\n")
    watch = watched(len_of, bf.files(folder / "in"), into=f"{folder}/other/", executor="serial", chunk=1)
    assert watch.lines[-1] == "6/6 files"


def len_of(file):
    return file.size


@pytest.mark.parametrize("options", [{"concurrency": 4}, {"rate": 1_000_000}])
def test_calls_are_counted_as_records(folder, options):
    watch = watched(lambda line: 1, bf.read_text(folder / "in"), executor="serial", chunk="300B", **options)
    assert re.fullmatch(r"1,005 records, ([\d.]+ kB)/\1", watch.lines[-1])  # small files weigh a little more
    assert re.search(r"[\d,.]+ records/s\]", watch.count.line.text)


def test_other_input_is_counted_in_bytes(folder):
    watch = watched(lambda line: 1, bf.read_text(folder / "in"), executor="serial")
    assert re.fullmatch(r"([\d.]+ kB)/\1", watch.lines[-1])


def test_records_in_memory_are_counted_as_records():
    assert watched(abs, bf.records(range(7)), executor="serial", concurrency=2).lines[-1] == "7/7 records"
