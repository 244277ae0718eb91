"""Rate limit for calls of all workers of a job together: pure arithmetic over one number.

The number is the time at which the next call would be due if calls came at even intervals (virtual scheduling,
GCRA). A call may start early by the burst, and moves the number forward. The whole state of a limit is thus
eight bytes that any process can hold, without a timer.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, Protocol

from batchflow.errors import UsageError

_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_FORM = r"(\d+(?:\.\d+)?)(?:/(s|min|h))?(?: burst (\d+))?"
_USUAL_BURST = 0.01
"""Default burst in seconds' worth of calls, which lets a caller that wakes late catch up."""
_LATE = 0.5
"""Share of an interval that a call may start early, in case the previous one woke late."""
_MOST = 1e6
"""Maximum rate in calls per second."""


class Rate(NamedTuple):
    """Rate limit: at most ``seconds / interval + burst`` calls in a period, rounded."""

    interval: float
    """Seconds between calls."""
    burst: int = 1
    """Number of calls that may start together after a pause."""

    @property
    def per_second(self) -> float:
        """Calls per second."""
        return 1 / self.interval

    def __str__(self) -> str:
        burst = f" burst {self.burst}" if self.burst > 1 else ""
        return f"{self.per_second:.3g} calls/s{burst}"

    @property
    def _early(self) -> float:
        """Seconds by which a call may start before it is due."""
        return (self.burst - 1 + _LATE) * self.interval

    def take(self, due: float, now: float) -> tuple[float, float]:
        """Return how long a call has to wait and when the next one is due.

        A call that has to wait is not counted: it asks again afterwards, since other calls may have come first or
        all calls may have been paused.
        """
        wait = due - self._early - now
        if wait > 0:
            return wait, due
        return 0.0, max(due, now) + self.interval

    def paused(self, due: float, until: float) -> float:
        """Return when the next call is due if none may start before a given time."""
        return max(due, until + self._early)


class RateLimiter(Protocol):
    """Rate limiter shared by all workers of a job."""

    def reserve(self) -> float:
        """Return 0 and count the call if it may start now; otherwise return the seconds until the next request."""

    def pause(self, seconds: float) -> None:
        """Block all calls for a while."""

    def close(self) -> None:
        """Release the resources of the limiter; only its creator calls this."""


def parse_rate(rate: Any) -> Rate:
    """Parse a rate from ``50``, ``"50/s"``, ``"100/min"``, ``"1000/h"`` or ``"50/s burst 10"``.

    Raises
    ------
    UsageError
        If the value has none of these forms, or is not positive.
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
