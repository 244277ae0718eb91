"""CPU quota and memory of a process's own control groups, told from trees of files like those of the kernel."""

import os

import pytest

from batchflow.core import resources
from batchflow.core.cgroups import CgroupLimits, cgroup_limits

V2 = "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1 = """32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:33 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids"""
UNLIMITED = "9223372036854771712"


@pytest.fixture
def tree(tmp_path):
    """Return a function that makes a tree of files and returns the limits that it sets."""

    def make(groups, mounts, files):
        for path, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(f"{text}\n")
        return cgroup_limits(str(tmp_path))

    return make


def test_version_2_takes_the_tightest_of_nested_slices(tree):
    assert tree(
        "0::/user.slice/user-1.slice/job.scope",
        V2,
        {
            "sys/fs/cgroup/user.slice/cpu.max": "max 100000",
            "sys/fs/cgroup/user.slice/memory.max": "4000000000",
            "sys/fs/cgroup/user.slice/user-1.slice/cpu.max": "250000 100000",
            "sys/fs/cgroup/user.slice/user-1.slice/memory.max": "max",
            "sys/fs/cgroup/user.slice/user-1.slice/job.scope/cpu.max": "400000 100000",
            "sys/fs/cgroup/user.slice/user-1.slice/job.scope/memory.max": "8000000000",
            "sys/fs/cgroup/other.slice/cpu.max": "100000 100000",
            "sys/fs/cgroup/other.slice/memory.max": "1",
        },
    ) == CgroupLimits(2.5, 4_000_000_000)


def test_version_2_without_limits_has_none(tree):
    files = {"sys/fs/cgroup/a/cpu.max": "max 100000", "sys/fs/cgroup/a/memory.max": "max"}
    assert tree("0::/a", V2, files) == CgroupLimits(None, None)


def test_container_sees_its_own_group_as_the_root(tree):
    files = {"sys/fs/cgroup/cpu.max": "50000 100000", "sys/fs/cgroup/memory.max": "1000"}
    assert tree("0::/", V2, files) == CgroupLimits(0.5, 1000)


def test_mounted_group_is_taken_off_the_path(tree):
    mount = V2.replace(" / /sys", " /docker/abc /sys")
    files = {"sys/fs/cgroup/cpu.max": "300000 100000", "sys/fs/cgroup/inner/cpu.max": "200000 100000"}
    assert tree("0::/docker/abc/inner", mount, files) == CgroupLimits(2, None)


@pytest.mark.parametrize("path", ["/../../other", "/elsewhere", "/docker/abcd"])
def test_group_of_another_namespace_counts_as_what_is_mounted(tree, path):
    mount = V2.replace(" / /sys", " /docker/abc /sys")
    assert tree(f"0::{path}", mount, {"sys/fs/cgroup/cpu.max": "300000 100000"}) == CgroupLimits(3, None)


def test_version_1_has_a_hierarchy_for_each_controller(tree):
    assert tree(
        "4:memory:/system.slice/job\n2:cpu,cpuacct:/system.slice/job\n1:pids:/x\n0::/",
        V1,
        {
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu,cpuacct/system.slice/job/cpu.cfs_quota_us": "150000",
            "sys/fs/cgroup/cpu,cpuacct/system.slice/job/cpu.cfs_period_us": "50000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED,
            "sys/fs/cgroup/memory/system.slice/memory.limit_in_bytes": "3000000000",
            "sys/fs/cgroup/memory/system.slice/job/memory.limit_in_bytes": UNLIMITED,
        },
    ) == CgroupLimits(3, 3_000_000_000)


def test_version_1_without_limits_has_none(tree):
    files = {"sys/fs/cgroup/memory/memory.limit_in_bytes": UNLIMITED}
    assert tree("4:memory:/\n2:cpu,cpuacct:/", V1, files) == CgroupLimits(None, None)


def test_both_versions_side_by_side(tree):
    hybrid = f"{V1}\n{V2.replace('/sys/fs/cgroup', '/sys/fs/cgroup/unified')}"
    assert tree(
        "4:memory:/a\n0::/b",
        hybrid,
        {
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "2000",
            "sys/fs/cgroup/unified/b/cpu.max": "100000 100000",
        },
    ) == CgroupLimits(1, 2000)


def test_names_may_hold_spaces_and_colons(tree):
    mount = V2.replace("/sys/fs/cgroup", r"/my\040groups")
    assert tree("0::/a:b c", mount, {"my groups/a:b c/memory.max": "77"}) == CgroupLimits(None, 77)


@pytest.mark.parametrize("text", ["", "max", "0 100000", "a b", "100000 0", "-1 100000"])
def test_odd_quotas_are_none(tree, text):
    assert tree("0::/", V2, {"sys/fs/cgroup/cpu.max": text}) == CgroupLimits(None, None)


def test_no_proc_means_no_limits(tmp_path):
    assert cgroup_limits(str(tmp_path)) == CgroupLimits(None, None)


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (16.0, 8), (2.5, 2), (0.5, 1)])
def test_cores_are_the_least_of_affinity_and_quota(monkeypatch, quota, cores):
    monkeypatch.setattr(resources, "_cgroup_limits", lambda: CgroupLimits(quota, None))
    monkeypatch.setattr(os, "process_cpu_count", lambda: 8, raising=False)
    assert resources.available_cpus() == cores


def test_memory_is_the_least_of_machine_and_groups(monkeypatch):
    monkeypatch.setattr(resources, "_cgroup_limits", lambda: CgroupLimits(None, 12345))
    assert resources.total_memory.__wrapped__() == 12345
