"""Amounts of CPU, memory and other resources: what a job may use and what a task asks for."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple, Self

from batchflow.core.cgroups import CgroupLimits, cgroup_limits
from batchflow.errors import ResourceError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {f"{unit}i": 2 ** (10 * power) for power, unit in enumerate("kmgt", 1)}
_AMOUNT = r"(?i)\s*(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?i?)b?\s*"

WAITING = 4
"""Tasks side by side for each core of a job that hold none of it: each is a process, and takes memory."""


def parse_bytes(amount: int | str) -> int:
    """Return a number of bytes from ``"8MB"`` (10**6), ``"8MiB"`` (2**20), ``"512k"`` or an int.

    Raises
    ------
    ResourceError
        If the text is not an amount, or not positive.
    """
    if type(amount) is int and amount > 0:
        return amount
    match = re.fullmatch(_AMOUNT, str(amount))
    unit = match[2].lower() if match else "?"
    value = int(float(match[1]) * _UNITS[unit]) if match and unit in _UNITS else 0
    if value <= 0:
        message = f"{amount!r} is not an amount of bytes: write it like 500_000, '8MB' or '2GiB'"
        raise ResourceError(message)
    return value


def format_bytes(count: float) -> str:
    """Return bytes as a person reads them, in powers of 1000: ``"1.5 GB"``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


class _Resources(NamedTuple):
    cpus: float | None
    """Logical cores; ``None``: all there are (limits), or one (per task). Tasks that only wait may ask for 0:
    there are four for each core of the job side by side then, or as many as ``Processes(workers=)`` says."""
    memory: int | str | None
    """Bytes, or a text like ``"2GB"``; kept as a number of bytes."""
    gpus: float
    """GPUs, fractions too; placed by Ray only."""
    custom: Mapping[str, float]
    """Custom resources by name; placed by Ray only."""
    accelerator: str | None
    """Type of GPU, by Ray's name for it like ``"A100"``; placed by Ray only."""


class Resources(_Resources):
    """An amount of resources: the caps of a job (``limits=``) or the request of a task (``per_task=``).

    Raises
    ------
    ResourceError
        If an amount is negative or not a number of bytes.
    """

    __slots__ = ()

    def __new__(
        cls,
        cpus: float | None = None,
        memory: int | str | None = None,
        gpus: float = 0,
        custom: Mapping[str, float] | None = None,
        accelerator: str | None = None,
    ) -> Self:
        """Return them, once they are checked."""
        nbytes = None if memory is None else parse_bytes(memory)
        for name, amount in {"cpus": cpus or 0, "gpus": gpus, **(custom or {})}.items():
            if amount < 0:
                message = f"{name}={amount} is negative: an amount of a resource is 0 or more"
                raise ResourceError(message)
        return super().__new__(cls, cpus, nbytes, gpus, custom or {}, accelerator)

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Self:  # type: ignore[override]
        return cls(*iterable)  # what `_replace` gives is checked, too

    @property
    def nbytes(self) -> int | None:
        """Memory as a number of bytes, ``None`` where no cap is set."""
        return None if self.memory is None else parse_bytes(self.memory)

    @property
    def needs_ray(self) -> bool:
        """Whether only Ray can place this: GPUs or custom resources."""
        return bool(self.gpus or self.custom or self.accelerator)


_ROUNDING = 1e-9
"""What sums of fractions may be wrong by."""
WAITERS = 32
"""Tasks beside those that hold a core, at most: each takes a process, even if it only waits."""


class Budget:
    """What may be in use at the same time, by all the work that shares an executor.

    Parameters
    ----------
    limits
        All there is.
    tasks
        How many may run side by side, where that is counted; otherwise `WAITERS` more than there are cores.
    """

    def __init__(self, limits: Resources, tasks: int | None = None) -> None:
        self._all: dict[str, float] = {}
        self._free: dict[str, float] = {}
        self._set({"cpus": 0.0, **amounts(limits)}, tasks)
        self.tasks: int = 0
        """Tasks that take something of it."""

    def _set(self, all_there_is: dict[str, float], tasks: float | None) -> None:
        all_there_is["tasks"] = all_there_is["cpus"] + WAITERS if tasks is None else tasks
        for name in self._all.keys() | all_there_is.keys():
            more = all_there_is.get(name, 0) - self._all.get(name, 0)
            self._free[name] = self._free.get(name, 0) + more
        self._all = all_there_is
        self.slots: int = max(1, int(min(self._all["cpus"], self._all["tasks"])))
        """Tasks of one core that run side by side."""

    def follow(self, other: Budget) -> None:
        """Allow as much as another budget does from now on; what is in use stays so."""
        self._set(dict(other._all), other._all["tasks"])

    def check(self, need: Mapping[str, float]) -> None:
        """Raise `ResourceError` if there is never room for a task, whatever else runs."""
        for name, amount in need.items():
            have = self._all.get(name, 0)
            if amount > have:
                told: Callable[[float], str] = format_bytes if name == "memory" else "{:g}".format
                message = f"one task asks for {told(amount)} {name}, but all that runs may use {told(have)}"
                raise ResourceError(message)

    def fits(self, need: Mapping[str, float]) -> bool:
        """Whether there is room for a task."""
        return all(amount <= self._free.get(name, 0) + _ROUNDING for name, amount in need.items())

    def take(self, need: Mapping[str, float]) -> None:
        """Count what a task needs as in use."""
        for name, amount in need.items():
            self._free[name] = self._free.get(name, 0) - amount
        self.tasks += 1

    def give(self, need: Mapping[str, float]) -> None:
        """Count what a task needed as free again."""
        for name, amount in need.items():
            self._free[name] += amount
        self.tasks -= 1


def amounts(task: Resources) -> dict[str, float]:
    """Return what one task takes of a `Budget`, by name; what it takes nothing of is left out."""
    cpus = 1 if task.cpus is None else task.cpus
    named = {"cpus": cpus, "memory": task.nbytes or 0, "gpus": task.gpus, **task.custom, "tasks": 1}
    return {name: amount for name, amount in named.items() if amount}


def capped(limits: Resources, cpus: float, memory: int, **custom: float) -> Resources:
    """Return what a machine or a cluster has, as far as limits allow."""
    fewest = {name: min(limits.custom.get(name, amount), amount) for name, amount in custom.items()}
    gpus = fewest.pop("GPU", 0.0)
    return Resources(
        cpus if limits.cpus is None else min(limits.cpus, cpus),
        min(limits.nbytes or memory, memory),
        min(limits.gpus or gpus, gpus),
        fewest,
    )


def available_cpus() -> int:
    """Return the number of cores this process may use: its affinity and the quota of its control groups."""
    count = getattr(os, "process_cpu_count", None)  # from Python 3.13 on; heeds PYTHON_CPU_COUNT too
    affinity = getattr(os, "sched_getaffinity", None)
    cores = (count() if count else len(affinity(0)) if affinity else os.cpu_count()) or 1
    quota = _cgroup_limits().cpus
    return cores if quota is None else max(1, min(cores, int(quota)))


@cache  # a flow of few short steps would spend a tenth of its time on these files
def _cgroup_limits() -> CgroupLimits:
    return cgroup_limits()


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


@cache
def total_memory() -> int:
    """Return the bytes of memory this process may use: of the machine, or of its control groups."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _cgroup_limits().memory
    return machine if limit is None else min(machine, limit)


def busy_cores(seconds: float) -> float:
    """Return how many cores of the machine are in use, watched for a moment; its load where nobody knows."""
    try:
        before = _ticks()
        time.sleep(seconds)
        passed = [max(0, now - then) for now, then in zip(_ticks(), before, strict=True)]
        idle = passed[3] + passed[4]  # nothing to do, and nothing but waiting for a disk: proc_stat(5)
        return (os.cpu_count() or 1) * (1 - idle / sum(passed))
    except (OSError, ValueError, IndexError, ZeroDivisionError):  # no such file, or a sandbox's own
        return os.getloadavg()[0]


def _ticks() -> list[int]:
    """Return the ticks of all cores together, by what they went into."""
    return [int(number) for number in _read("/proc/stat").partition("\n")[0].split()[1:9]]  # others are in these


def count_slots(limits: Resources, per_task: Resources, cpus: float, memory: int) -> int:
    """Return how many tasks fit side by side into the limits of a job on a machine.

    Parameters
    ----------
    limits, per_task
        Caps of the job and request of one task.
    cpus, memory
        What the machine or cluster has, in cores and bytes.

    Raises
    ------
    ResourceError
        If not even one task fits; the message has the numbers.
    """
    cpu_cap = min(limits.cpus, cpus) if limits.cpus is not None else cpus
    memory_cap = min(limits.nbytes or memory, memory)
    per_cpu = 1 if per_task.cpus is None else per_task.cpus
    _check(per_cpu, cpu_cap, "{:g} cpus".format)
    _check(per_task.nbytes or 0, memory_cap, lambda nbytes: f"{format_bytes(nbytes)} of memory")
    by_cpu = int(cpu_cap / per_cpu) if per_cpu else int(cpu_cap * WAITING)
    return max(1, min(by_cpu, memory_cap // per_task.nbytes if per_task.nbytes else by_cpu))


def _check(asked: float, cap: float, told: Callable[[float], str]) -> None:
    """Refuse a task that asks for more than there will ever be."""
    if asked > cap:
        message = (
            f"one task asks for {told(asked)}, but the job may use {told(cap)}: "
            "raise limits= (--workers, --memory) or lower per_task="
        )
        raise ResourceError(message)
