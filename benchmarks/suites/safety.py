"""What does it cost that nothing is lost, whatever dies?

The job of the suite ``one_file`` with all that makes it safe: a ledger line for each chunk, digests,
syncs, retries and a time limit; beside it the same job with all of that taken out.
"""

from __future__ import annotations

from benchmarks.harness import OUT, Contestant, Suite
from benchmarks.suites.one_file import BYTES
from datasets import events_jsonl


def suite(scale: float) -> Suite:
    """Return the race over one file, which is made before it starts."""
    args = (str(events_jsonl(int(BYTES * scale))), OUT)
    contestants = [
        Contestant("batchflow", "one_file_safe.py", args),
        Contestant("batchflow without ledger, digests and syncs", "one_file_unsafe.py", args, target=1.05),
    ]
    return Suite(__doc__ or "", contestants)
