"""What does it cost to try again what failed?

A job over a CSV file of which one record in a hundred failed, or all of them, is run again with a function that is
fixed; only that is timed. "The whole job" is the same file with the fixed function at once.
"""

from __future__ import annotations

from benchmarks.harness import Contestant, Suite
from datasets import sales_csv

BYTES = 20_000_000
TARGETS = {1: 1.0, 100: 1.5}
"""What a retry may take, as a multiple of the whole job, by the share of records that failed."""


def suites(scale: float) -> dict[str, Suite]:
    """Return a race for each share of records that failed."""
    path = str(sales_csv(int(BYTES * scale)))
    return {f"retry_failed {share} %": _suite(path, share, target) for share, target in TARGETS.items()}


def _suite(path: str, share: int, target: float) -> Suite:
    contestants = [
        Contestant(f"retry of {share} %", "retry_failed.py", (path, str(share))),
        Contestant("the whole job", "retry_failed.py", (path, "whole"), target=target),
    ]
    return Suite(__doc__ or "", contestants, "call")
