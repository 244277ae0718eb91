"""Rate limiter shared by all workers of a job, in a small actor."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchflow.core.rate import Rate

_NAMESPACE = "batchflow"
"""Namespace of the actors."""


class _Keeper:
    """Actor that schedules the calls of a job, by the clock of its node."""

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._due = 0.0

    def reserve(self) -> float:
        """Return 0 or the seconds until the next attempt."""
        seconds, self._due = self._rate.take(self._due, time.monotonic())
        return seconds

    def pause(self, seconds: float) -> None:
        """Block all starts for some seconds."""
        self._due = self._rate.paused(self._due, time.monotonic() + seconds)


class RayRateLimiter:
    """Rate limiter of a job in a Ray process, found by name since handles travel with tasks only."""

    def __init__(self, name: str, keeper: Any = None) -> None:
        self._name = name
        self._known = keeper

    @classmethod
    def make(cls, rate: Rate) -> RayRateLimiter:
        """Start the actor on any node; it restarts elsewhere if its node is lost."""
        import ray

        name = f"bucket-{os.urandom(16).hex()}"
        options = {"name": name, "namespace": _NAMESPACE, "max_restarts": -1, "max_task_retries": -1}
        return cls(name, ray.remote(_Keeper).options(num_cpus=0, **options).remote(rate))

    def __reduce__(self) -> tuple[Any, ...]:
        return RayRateLimiter, (self._name,)

    @property
    def _keeper(self) -> Any:
        if self._known is None:
            import ray

            self._known = ray.get_actor(self._name, _NAMESPACE)
        return self._known

    def reserve(self) -> float:
        """Reserve a start: return 0 if a call may start now, else the seconds until the next attempt."""
        import ray

        seconds: float = ray.get(self._keeper.reserve.remote())
        return seconds

    def pause(self, seconds: float) -> None:
        """Block all starts for some seconds."""
        import ray

        ray.get(self._keeper.pause.remote(seconds))

    def close(self) -> None:
        """Stop the actor."""
        import ray

        ray.kill(self._keeper)
