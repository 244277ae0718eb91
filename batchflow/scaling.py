"""How speed grows with workers: two laws, and their fits to what was measured; arithmetic only.

The laws give the speed-up over one worker:

- Amdahl (1967), "Validity of the single processor approach to achieving large scale computing capabilities":
  a share ``s`` of the work cannot be divided, so ``S(n) = 1 / (s + (1 - s) / n)``, never more than ``1 / s``.
- The Universal Scalability Law, Gunther (1993), "A simple capacity model of massively parallel transaction
  systems": workers also keep each other consistent, in pairs, so
  ``S(n) = n / (1 + sigma (n - 1) + kappa n (n - 1))``, which is Amdahl's law for ``kappa = 0`` and else falls
  behind ``n = sqrt((1 - sigma) / kappa)``.

Both are linear in their parameters once written as ``n / S(n) - 1``, so least squares need no search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

Measured = tuple[int, float]
"""Workers, and the speed-up over one of them."""


class Law(NamedTuple):
    """A law of speed-up with its parameters."""

    contention: float
    """Share of the work that cannot be divided: Amdahl's ``s``, Gunther's ``sigma``."""
    coherency: float = 0.0
    """What each pair of workers costs: Gunther's ``kappa``, 0 in Amdahl's law."""

    def speedup(self, workers: float) -> float:
        """Return how many times as fast as one so many workers are."""
        more = workers - 1
        return workers / (1 + self.contention * more + self.coherency * workers * more)

    @property
    def peak(self) -> float:
        """Workers with which it is fastest; infinite where more never hurt."""
        if self.coherency <= 0:
            return math.inf
        return max(1.0, math.sqrt(max(0.0, 1 - self.contention) / self.coherency))

    @property
    def limit(self) -> float:
        """The speed-up that no number of workers exceeds."""
        if self.coherency > 0:
            return self.speedup(self.peak)
        return 1 / self.contention if self.contention > 0 else math.inf


def fit_amdahl(measured: Sequence[Measured]) -> Law | None:
    """Return Amdahl's law as it fits best; ``None`` where nothing but one worker was measured.

    ``n / S - 1 = s (n - 1)`` is a line through the origin.
    """
    points = _linear(measured)
    if not points:
        return None
    slope = sum(x * y for x, _, y in points) / sum(x * x for x, _, _ in points)
    return Law(min(1.0, max(0.0, slope)))


def fit_usl(measured: Sequence[Measured]) -> Law | None:
    """Return the Universal Scalability Law as it fits best; ``None`` for less than two numbers beyond one worker.

    ``n / S - 1 = sigma (n - 1) + kappa n (n - 1)``, solved by the normal equations. Neither parameter is
    negative: where one came out so it is 0, and the other one alone fits best.
    """
    points = _linear(measured)
    if len({x for x, _, _ in points}) < 2:
        return None
    xx, xz, zz, xy, zy = (
        sum(values) for values in zip(*((x * x, x * z, z * z, x * y, z * y) for x, z, y in points), strict=True)
    )
    determinant = xx * zz - xz * xz
    contention = (xy * zz - zy * xz) / determinant
    coherency = (zy * xx - xy * xz) / determinant
    if coherency < 0:
        contention, coherency = xy / xx, 0.0
    elif contention < 0:
        contention, coherency = 0.0, zy / zz
    return Law(min(1.0, max(0.0, contention)), max(0.0, coherency))


def _linear(measured: Sequence[Measured]) -> list[tuple[float, float, float]]:
    """Return what each point beyond one worker gives to the sums of least squares."""
    return [(n - 1.0, n * (n - 1.0), n / speedup - 1) for n, speedup in measured if n > 1 and speedup > 0]
