"""How often a function may be called, by all workers of a job together: pure arithmetic over one number.

The number is when the next call would be due if calls came at even intervals (virtual scheduling, the
GCRA of networks). A call may start a little before it is due, by the burst, and moves the number on. So
the whole state of a limit is eight bytes, which any process can keep, and nothing ticks.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, Protocol

from batchflow.errors import UsageError

_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_FORM = r"(\d+(?:\.\d+)?)(?:/(s|min|h))?(?: burst (\d+))?"
_USUAL_BURST = 0.01
"""Seconds' worth of calls that may start together where no burst is named: what a late waker catches up."""
_LATE = 0.5
"""Share of an interval that a call may start early, so that the one before it may have woken late."""
_MOST = 1e6
"""Calls a second that a limit may allow: more of them nobody could count."""


class Rate(NamedTuple):
    """How many calls may start: in so many seconds ``seconds / interval + burst`` at most, rounded."""

    interval: float
    """Seconds from one call to the next."""
    burst: int = 1
    """Calls that may start together after a while without any."""

    @property
    def per_second(self) -> float:
        """Calls a second."""
        return 1 / self.interval

    def __str__(self) -> str:
        burst = f" burst {self.burst}" if self.burst > 1 else ""
        return f"{self.per_second:.3g} calls/s{burst}"

    @property
    def _early(self) -> float:
        """Seconds that a call may start before it is due."""
        return (self.burst - 1 + _LATE) * self.interval

    def take(self, due: float, now: float) -> tuple[float, float]:
        """Return how long a call has to wait, and when the next one is due.

        A call that has to wait is not counted: it asks again then, since others may have been faster,
        or all may have been told to pause.
        """
        wait = due - self._early - now
        if wait > 0:
            return wait, due
        return 0.0, max(due, now) + self.interval

    def paused(self, due: float, until: float) -> float:
        """Return when the next call is due if none may start before a time."""
        return max(due, until + self._early)


class RateLimiter(Protocol):
    """One limit for all workers of a job, wherever they are."""

    def reserve(self) -> float:
        """Return 0 where a call may start now, which is counted; else the seconds after which to ask again."""

    def pause(self, seconds: float) -> None:
        """Let no call start for a while."""

    def close(self) -> None:
        """Remove what was made for it; by who made it."""


def parse_rate(rate: Any) -> Rate:
    """Return a rate from ``50``, ``"50/s"``, ``"100/min"``, ``"1000/h"`` or ``"50/s burst 10"``.

    Raises
    ------
    UsageError
        If it is none of these, or not over 0.
    """
    if isinstance(rate, Rate):
        return rate
    number = isinstance(rate, int | float) and not isinstance(rate, bool)
    text = f"{rate:f}" if number else rate
    match = re.fullmatch(_FORM, text, re.ASCII) if isinstance(text, str) else None
    per_second = float(match[1]) / _UNITS[match[2] or "s"] if match else 0.0
    burst = int(match[3]) if match and match[3] else max(1, round(per_second * _USUAL_BURST))
    if not 0 < per_second <= _MOST or burst < 1:
        message = (
            f"rate={rate!r} is not a rate: write calls per second as a number over 0, "
            "or like '50/s', '100/min', '1000/h', '50/s burst 10'"
        )
        raise UsageError(message)
    return Rate(1 / per_second, burst)
