"""CPU quota and memory limit of this process's control groups: container, systemd slice or batch system."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

_NO_LIMIT = 1 << 62
"""Bytes above which version 1 means no limit."""


class CgroupLimits(NamedTuple):
    """Limits set by control groups; ``None``: no limit."""

    cpus: float | None = None
    memory: int | None = None


class _Mount(NamedTuple):
    """Mounted hierarchy of control groups."""

    controllers: frozenset[str]
    """Controllers of the hierarchy; empty for version 2."""
    root: str
    """Group that is mounted; in a container, its own."""
    folder: str


def cgroup_limits(root: str = "/") -> CgroupLimits:
    """Return the tightest limits of this process's groups and all their parent groups.

    Parameters
    ----------
    root
        Folder that contains ``proc`` and ``sys``.
    """
    cpus: list[float] = []
    memory: list[int] = []
    mounts = list(_mounts(root))
    for controllers, path in _memberships(root):
        for mount in mounts:
            if not _is_of(mount, controllers):
                continue
            for folder in _folders(mount, path, root):
                cpus += _quota(folder)
                memory += _memory(folder)
    return CgroupLimits(min(cpus, default=None), min(memory, default=None))


def _memberships(root: str) -> Iterator[tuple[frozenset[str], str]]:
    """Yield the controllers and the path of each group of this process."""
    for line in _lines(f"{root}/proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        yield frozenset(filter(None, controllers.split(","))), path


def _mounts(root: str) -> Iterator[_Mount]:
    for line in _lines(f"{root}/proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if kind[0] == "cgroup2":
            yield _Mount(frozenset(), _unescaped(fields[3]), _unescaped(fields[4]))
        elif kind[0] == "cgroup":
            yield _Mount(frozenset(kind[2].split(",")), _unescaped(fields[3]), _unescaped(fields[4]))


def _unescaped(path: str) -> str:
    return path.encode().decode("unicode_escape") if "\\" in path else path  # \040 is a space


def _is_of(mount: _Mount, controllers: frozenset[str]) -> bool:
    return not controllers.isdisjoint(mount.controllers) if controllers else not mount.controllers


def _folders(mount: _Mount, path: str, root: str) -> Iterator[str]:
    """Yield the folder of a group and those of its parents, up to the mounted one."""
    prefix = mount.root.rstrip("/")
    is_inside = path == mount.root or path.startswith(f"{prefix}/")
    parts = path[len(prefix) :].strip("/").split("/") if is_inside else []
    parts = [] if ".." in parts else list(filter(None, parts))  # another namespace: only the mount is visible
    for count in range(len(parts), -1, -1):
        yield os.path.join(f"{root}/{mount.folder}", *parts[:count])


def _quota(folder: str) -> list[float]:
    """Return the CPU quota of a group in cores, as a list of at most one number."""
    quota = _words(f"{folder}/cpu.max")
    if not quota:
        quota = [*_words(f"{folder}/cpu.cfs_quota_us"), *_words(f"{folder}/cpu.cfs_period_us")]
    try:
        cores = int(quota[0]) / int(quota[1])
    except (ValueError, LookupError, ZeroDivisionError):  # "max", or no such file
        return []
    return [cores] if cores > 0 else []  # version 1 uses -1 for no limit


def _memory(folder: str) -> list[int]:
    """Return the memory limit of a group in bytes, as a list of at most one number."""
    limit = _words(f"{folder}/memory.max") or _words(f"{folder}/memory.limit_in_bytes")
    nbytes = int(limit[0]) if limit and limit[0].isdigit() else _NO_LIMIT
    return [nbytes] if nbytes < _NO_LIMIT else []


def _words(path: str) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []
