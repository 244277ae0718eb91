"""CPU quota and memory limit of this process's control groups: a container, a systemd slice, a batch system."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

_NO_LIMIT = 1 << 62
"""Bytes from which on version 1 means that there is no limit."""


class CgroupLimits(NamedTuple):
    """Limits that control groups set; ``None``: there is none."""

    cpus: float | None = None
    memory: int | None = None


class _Mount(NamedTuple):
    """A mounted hierarchy of control groups."""

    controllers: frozenset[str]
    """Empty for version 2."""
    root: str
    """The group that is mounted: in a container its own."""
    folder: str


def cgroup_limits(root: str = "/") -> CgroupLimits:
    """Return the tightest limits of this process's groups and of all groups that these are in.

    Parameters
    ----------
    root
        Folder in which ``proc`` and ``sys`` are.
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
    """Yield the controllers and the path of each group that this process is in."""
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
    """Yield the folder of a group, and those of the groups that it is in, up to the one that is mounted."""
    prefix = mount.root.rstrip("/")
    is_inside = path == mount.root or path.startswith(f"{prefix}/")
    parts = path[len(prefix) :].strip("/").split("/") if is_inside else []
    parts = [] if ".." in parts else list(filter(None, parts))  # of another namespace: only the mount is seen
    for count in range(len(parts), -1, -1):
        yield os.path.join(f"{root}/{mount.folder}", *parts[:count])


def _quota(folder: str) -> list[float]:
    """Return the cores that a group may use, in a list."""
    quota = _words(f"{folder}/cpu.max")
    if not quota:
        quota = [*_words(f"{folder}/cpu.cfs_quota_us"), *_words(f"{folder}/cpu.cfs_period_us")]
    try:
        cores = int(quota[0]) / int(quota[1])
    except (ValueError, LookupError, ZeroDivisionError):  # "max", or no such file
        return []
    return [cores] if cores > 0 else []  # version 1 has -1 for no limit


def _memory(folder: str) -> list[int]:
    """Return the bytes that a group may use, in a list."""
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
