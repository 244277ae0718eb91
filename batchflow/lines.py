"""Which calls are short enough to stand in a line at one worker, and how long such a line may be.

A call that is over sooner than a message goes there and back leaves its worker idle in between. So calls
that are short, as far as was seen, are sent to a worker before it is done with the one before: within a
line, one takes over from the other what that took of the budget, so that no more run than are to.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from batchflow.doing import Doing

AHEAD_SECONDS = 0.001
"""What a line may take, as far as can be told: so long, at most, does a call wait in vain for a worker."""
STUCK_SECONDS = 0.005
"""After what time without an outcome the calls of a line that did not begin are taken back."""
_UNSEEN_SECONDS = 0.0001
"""What a call is taken to take before one of its function was seen: some may follow, and be taken back."""
_SHARE = 1 / 8
"""Weight of the last call in the mean."""


class Line:
    """Calls at one worker, of which the first one runs.

    Parameters
    ----------
    takes
        What it takes of the budget, whichever of its calls runs.
    program
        Number of their program at the executor.
    """

    def __init__(self, takes: tuple[tuple[str, float], ...], program: int) -> None:
        self.takes = takes
        self.program = program
        self.steps: deque[Doing] = deque()
        self.is_open = True
        """Whether more may follow."""
        self._since = time.monotonic()
        self._seconds = 0.0

    def wants_more(self, most: int) -> bool:
        """Whether others are to follow: several together, so not while more than half of the most stand in it."""
        return self.is_open and 2 * len(self.steps) <= most

    def has_room(self, seconds: float, most: int) -> bool:
        """Whether a call may follow that takes so long, as far as can be told."""
        return self.is_open and len(self.steps) <= most and self._seconds + seconds <= AHEAD_SECONDS

    def add(self, step: Doing, seconds: float) -> None:
        """Have a call stand last."""
        step.line, step.seconds = self, seconds
        self.steps.append(step)
        self._seconds += seconds

    def remove(self, step: Doing) -> None:
        """Take out a call that came to its end, was taken back or did not begin."""
        self.steps.remove(step)
        step.line = None
        self._seconds -= step.seconds
        self._since = time.monotonic()

    def waits_for_nothing_else(self, step: Doing) -> bool:
        """Whether all that a step still waits for are values of calls in this line."""
        if step.waits > len(self.steps) or not step.can_follow or step.takes != self.takes:
            return False
        if any(one.state is None or one.broken for one in step.after):
            return False
        return all(one.given is not None or one.line is self for _, steps in step.needs for one in steps)

    @property
    def has_unbegun(self) -> bool:
        """Whether there are calls in it that are not known to have begun."""
        return len(self.steps) > 1 or self.steps[0].ahead

    @property
    def is_stuck(self) -> bool:
        """Whether nothing came of it for a while."""
        return time.monotonic() - self._since > STUCK_SECONDS


class Pace:
    """How long calls take, by their function."""

    def __init__(self) -> None:
        self._means: dict[Any, float] = {}

    def saw(self, step: Doing, seconds: float) -> None:
        """Note how long a call took."""
        mean = self._means.get(step.spec.fn, seconds)
        self._means[step.spec.fn] = mean + (seconds - mean) * _SHARE

    def expected(self, step: Doing) -> float:
        """Return how long a call will take, as far as can be told."""
        return self._means.get(step.spec.fn, _UNSEEN_SECONDS)
