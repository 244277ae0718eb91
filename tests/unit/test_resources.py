import os
import subprocess
import sys

import pytest

import batchflow as bf
from batchflow.core.resources import Resources, available_cpus, busy_cores, count_slots, format_bytes, parse_bytes
from batchflow.errors import ResourceError


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (5, 5),
        ("5", 5),
        ("8MB", 8_000_000),
        ("8 mb", 8_000_000),
        ("1.5GB", 1_500_000_000),
        ("2GiB", 2**31),
        ("512k", 512_000),
        ("1Ki", 1024),
        (".5 TB", 500_000_000_000),
        ("3b", 3),
    ],
)
def test_amounts_of_bytes(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "GB", "-1", "0", "1XB", "1 000", "nan", "8MB2", 0, -5])
def test_what_is_no_amount(text):
    with pytest.raises(ResourceError, match="is not an amount of bytes: write it like"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_500_000, "1.5 MB"), (2e9, "2 GB"), (3e13, "30 TB")],
)
def test_bytes_as_a_person_reads_them(count, text):
    assert format_bytes(count) == text


def test_memory_is_kept_as_bytes():
    assert Resources(memory="2GB").nbytes == 2_000_000_000
    assert Resources().nbytes is None


def test_negative_amounts_are_refused():
    with pytest.raises(ResourceError, match="cpus=-1 is negative"):
        Resources(cpus=-1)
    with pytest.raises(ResourceError, match="tokens=-2 is negative"):
        Resources(custom={"tokens": -2})


def test_only_ray_places_gpus_and_custom_resources():
    assert Resources(gpus=0.5).needs_ray
    assert Resources(custom={"tpu": 1}).needs_ray
    assert not Resources(cpus=2, memory="1GB").needs_ray


@pytest.mark.parametrize(
    ("limits", "per_task", "slots"),
    [
        (Resources(), Resources(), 8),
        (Resources(cpus=3), Resources(), 3),
        (Resources(cpus=100), Resources(), 8),
        (Resources(), Resources(cpus=3), 2),
        (Resources(), Resources(cpus=0.5), 16),
        (Resources(memory="4GB"), Resources(memory="1GB"), 4),
        (Resources(), Resources(memory="6GB"), 2),
        (Resources(cpus=2, memory="100GB"), Resources(memory="1GB"), 2),
        (Resources(), Resources(cpus=0), 32),
        (Resources(cpus=2), Resources(cpus=0), 8),
        (Resources(memory="4GB"), Resources(cpus=0, memory="1GB"), 4),
    ],
)
def test_tasks_side_by_side(limits, per_task, slots):
    assert count_slots(limits, per_task, 8, 16 * 10**9) == slots


def test_what_never_fits_is_refused_with_the_numbers():
    with pytest.raises(ResourceError, match="one task asks for 9 cpus, but the job may use 8 cpus: raise limits="):
        count_slots(Resources(), Resources(cpus=9), 8, 16 * 10**9)
    with pytest.raises(
        ResourceError, match="one task asks for 2 GB of memory, but the job may use 1 GB of memory: raise"
    ):
        count_slots(Resources(memory="1GB"), Resources(memory="2GB"), 8, 16 * 10**9)


def test_there_is_at_least_one_core():
    assert available_cpus() >= 1


def test_busy_cores_are_those_of_all_processes():
    spinning = [
        subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
        for _ in range(os.cpu_count())
    ]
    try:
        for process in spinning:
            process.stdout.read(1)
        assert busy_cores(0.3) > 0.9  # of however many this process may use
    finally:
        for process in spinning:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("stat", ["", "cpu a b c d e f g h", "cpu 0 0 0 0 0 0 0 0", None])
def test_where_nobody_tells_of_the_cores_the_load_does(monkeypatch, stat):
    def read(path):
        if stat is None:
            raise FileNotFoundError(path)
        return stat

    monkeypatch.setattr("batchflow.core.resources._read", read)
    monkeypatch.setattr("batchflow.core.resources.os.getloadavg", lambda: (1.5, 0, 0))
    assert busy_cores(0.0) == 1.5


def test_what_takes_the_place_of_a_field_is_checked_as_well():
    assert bf.Resources(cpus=2, memory="1GB")._replace(cpus=1) == bf.Resources(cpus=1, memory=10**9)
    with pytest.raises(bf.errors.ResourceError, match=r"cpus=-1 is negative"):
        bf.Resources(cpus=2)._replace(cpus=-1)
    with pytest.raises(bf.errors.UsageError, match="attempts are 1 or more"):
        bf.Retry()._replace(attempts=0)
