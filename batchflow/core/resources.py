"""Amounts of CPU, memory and other resources: limits of a job and requests of a task."""

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
"""Maximum parallel tasks per core if tasks request no CPU: each is a process and takes memory."""


def parse_bytes(amount: int | str) -> int:
    """Parse a number of bytes from ``"8MB"`` (10**6), ``"8MiB"`` (2**20), ``"512k"`` or an int.

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
    """Format bytes for people, in powers of 1000: ``"1.5 GB"``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


class _Resources(NamedTuple):
    cpus: float | None
    """Logical cores; ``None``: all available (limits), or one (per task). I/O-bound tasks may request 0: four of
    them run per core of the job then, or as many as ``Processes(workers=)`` allows.
    """
    memory: int | str | None
    """Bytes, or a text like ``"2GB"``; stored as a number of bytes."""
    gpus: float
    """GPUs, including fractions; scheduled by Ray only."""
    custom: Mapping[str, float]
    """Custom resources by name; scheduled by Ray only."""
    accelerator: str | None
    """Type of GPU, by its name in Ray like ``"A100"``; scheduled by Ray only."""


class Resources(_Resources):
    """Amount of resources: the limits of a job (``limits=``) or the request of a task (``per_task=``).

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
        """Create validated resources."""
        nbytes = None if memory is None else parse_bytes(memory)
        for name, amount in {"cpus": cpus or 0, "gpus": gpus, **(custom or {})}.items():
            if amount < 0:
                message = f"{name}={amount} is negative: an amount of a resource is 0 or more"
                raise ResourceError(message)
        return super().__new__(cls, cpus, nbytes, gpus, custom or {}, accelerator)

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> Self:  # type: ignore[override]
        return cls(*iterable)  # validates the result of `_replace`, too

    @property
    def nbytes(self) -> int | None:
        """Memory in bytes; ``None`` if there is no limit."""
        return None if self.memory is None else parse_bytes(self.memory)

    @property
    def needs_ray(self) -> bool:
        """Whether only Ray can schedule this: GPUs or custom resources."""
        return bool(self.gpus or self.custom or self.accelerator)


_ROUNDING = 1e-9
"""Rounding error of sums of fractions."""
WAITERS = 32
"""Maximum tasks beyond those that hold a core: each takes a process, even if it only waits."""


class Budget:
    """Resources that may be in use at the same time by all work of an executor.

    Parameters
    ----------
    limits
        Total resources.
    tasks
        Maximum number of parallel tasks; by default, `WAITERS` more than there are cores.
    """

    def __init__(self, limits: Resources, tasks: int | None = None) -> None:
        self._all: dict[str, float] = {}
        self._free: dict[str, float] = {}
        self._set({"cpus": 0.0, **amounts(limits)}, tasks)
        self.tasks: int = 0
        """Number of tasks that hold resources."""

    def _set(self, all_there_is: dict[str, float], tasks: float | None) -> None:
        all_there_is["tasks"] = all_there_is["cpus"] + WAITERS if tasks is None else tasks
        for name in self._all.keys() | all_there_is.keys():
            more = all_there_is.get(name, 0) - self._all.get(name, 0)
            self._free[name] = self._free.get(name, 0) + more
        self._all = all_there_is
        self.slots: int = max(1, int(min(self._all["cpus"], self._all["tasks"])))
        """Number of one-core tasks that can run in parallel."""

    def follow(self, other: Budget) -> None:
        """Adopt the limits of another budget; resources in use stay so."""
        self._set(dict(other._all), other._all["tasks"])

    def check(self, need: Mapping[str, float]) -> None:
        """Raise `ResourceError` if a task can never fit, even alone."""
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
        """Reserve the resources of a task."""
        for name, amount in need.items():
            self._free[name] = self._free.get(name, 0) - amount
        self.tasks += 1

    def give(self, need: Mapping[str, float]) -> None:
        """Release the resources of a task."""
        for name, amount in need.items():
            self._free[name] += amount
        self.tasks -= 1


def amounts(task: Resources) -> dict[str, float]:
    """Return the resources that one task takes of a `Budget`, by name, without zero amounts."""
    cpus = 1 if task.cpus is None else task.cpus
    named = {"cpus": cpus, "memory": task.nbytes or 0, "gpus": task.gpus, **task.custom, "tasks": 1}
    return {name: amount for name, amount in named.items() if amount}


def capped(limits: Resources, cpus: float, memory: int, **custom: float) -> Resources:
    """Return the resources of a machine or cluster, reduced to the limits."""
    fewest = {name: min(limits.custom.get(name, amount), amount) for name, amount in custom.items()}
    gpus = fewest.pop("GPU", 0.0)
    return Resources(
        cpus if limits.cpus is None else min(limits.cpus, cpus),
        min(limits.nbytes or memory, memory),
        min(limits.gpus or gpus, gpus),
        fewest,
    )


def available_cpus() -> int:
    """Return the number of cores available to this process: by its affinity and control group quota."""
    count = getattr(os, "process_cpu_count", None)  # from Python 3.13 on; respects PYTHON_CPU_COUNT too
    affinity = getattr(os, "sched_getaffinity", None)
    cores = (count() if count else len(affinity(0)) if affinity else os.cpu_count()) or 1
    quota = _cgroup_limits().cpus
    return cores if quota is None else max(1, min(cores, int(quota)))


@cache  # otherwise a flow of few short steps spends a tenth of its time on these files
def _cgroup_limits() -> CgroupLimits:
    return cgroup_limits()


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


@cache
def total_memory() -> int:
    """Return the memory available to this process in bytes: of the machine, or of its control groups."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _cgroup_limits().memory
    return machine if limit is None else min(machine, limit)


def busy_cores(seconds: float) -> float:
    """Return the number of busy cores of the machine, sampled for a moment; its load average if unavailable."""
    try:
        before = _ticks()
        time.sleep(seconds)
        passed = [max(0, now - then) for now, then in zip(_ticks(), before, strict=True)]
        idle = passed[3] + passed[4]  # idle time and time waiting for a disk: proc_stat(5)
        return (os.cpu_count() or 1) * (1 - idle / sum(passed))
    except (OSError, ValueError, IndexError, ZeroDivisionError):  # no such file, or a sandbox's own
        return os.getloadavg()[0]


def _ticks() -> list[int]:
    """Return the ticks of all cores together, by category."""
    return [int(number) for number in _read("/proc/stat").partition("\n")[0].split()[1:9]]  # includes later ones


def count_slots(limits: Resources, per_task: Resources, cpus: float, memory: int) -> int:
    """Return the number of tasks that fit in parallel into the limits of a job on a machine.

    Parameters
    ----------
    limits, per_task
        Limits of the job and request of one task.
    cpus, memory
        Capacity of the machine or cluster, in cores and bytes.

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
    """Refuse a task that requests more than the limit."""
    if asked > cap:
        message = (
            f"one task asks for {told(asked)}, but the job may use {told(cap)}: "
            "raise limits= (--workers, --memory) or lower per_task="
        )
        raise ResourceError(message)
