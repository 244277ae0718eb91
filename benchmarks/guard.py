"""``python -m benchmarks.guard``: is anything far slower than the same work by hand? Small and never close, for CI.

Each race is a suite at a small size, ours against its `limit` row in the same run, whatever the machine. Ours may
take twice as long as it did when the bar was set, which no busy machine does to one of two programs in turns.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from typing import NamedTuple

from benchmarks.harness import race
from benchmarks.tables import markdown

ROUNDS = 3
FAR = 2.0
"""How many times the usual ratio is a fault."""


class Race(NamedTuple):
    """A suite at a small size."""

    suite: str
    scale: float
    usual: float
    """Ours / limit, as measured at this size on two cores."""


RACES = (Race("one_file", 0.2, 1.06), Race("files", 0.1, 1.2), Race("csv", 0.1, 1.4), Race("skew", 1.0, 1.0))


def main() -> int:
    """Run the races; the exit status is 1 if ours was far behind in one of them."""
    slow = []
    for one in RACES:
        suite = importlib.import_module(f"benchmarks.suites.{one.suite}").suite(one.scale)
        ours, limit = suite.contestants[:2]
        assert limit.name.startswith("limit"), limit
        pair = replace(suite, contestants=[ours, replace(limit, target=FAR * one.usual)])
        standings = race(pair, ROUNDS)
        print(f"## {one.suite}, scale {one.scale:g}\n\n{markdown(pair, standings)}\n", flush=True)
        if standings[0].median > FAR * one.usual * standings[1].median:
            slow.append(one.suite)
    if slow:
        print(f"beside the same work by hand more than {FAR:g} times as slow as usual: {slow}", file=sys.stderr)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
