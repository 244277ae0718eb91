"""What does a record cost for which the function raises?

The rows of a CSV file go through a function that raises for a tenth, a half, or all of them. joblib and mpire
catch the exception and return its text, the record and the traceback, as our table of errors has them. "None
fail" is ours with the same file: a job of which every record fails may take three times as long.
"""

from __future__ import annotations

from benchmarks.harness import Contestant, Suite
from datasets import sales_csv

BYTES = 20_000_000
SHARES = (10, 50, 100)


def suites(scale: float) -> dict[str, Suite]:
    """Return a race for each share of records that fail."""
    path = str(sales_csv(int(BYTES * scale)))
    return {f"failing {share} %": _suite(path, str(share)) for share in SHARES}


def _suite(path: str, share: str) -> Suite:
    contestants = [
        Contestant("batchflow", "failing.py", ("batchflow", path, share)),
        Contestant("joblib", "failing.py", ("joblib", path, share), target=1.0, needs="joblib"),
        Contestant("mpire", "failing.py", ("mpire", path, share), target=1.0, needs="mpire"),
        Contestant("batchflow, none fail", "failing.py", ("batchflow", path, "0"), target=3.0),
    ]
    return Suite(__doc__ or "", contestants, same_output=False)
