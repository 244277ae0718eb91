"""Does the driver need more memory when the input is ten times as large?

The job of `one_file`, with 25 MB and with 250 MB; what counts is the peak of the driver's own resident
memory, not that of its workers.
"""

from __future__ import annotations

from benchmarks.harness import OUT, Contestant, Suite
from benchmarks.suites.one_file import BYTES
from datasets import events_jsonl


def suite(scale: float) -> Suite:
    """Return the race of the job with itself: the large one must not need more than the small one."""
    large, small = (str(events_jsonl(int(BYTES * scale * share))) for share in (1, 0.1))
    contestants = [
        Contestant("10 times as large", "records_batchflow.py", ("json", OUT, large)),
        Contestant("small", "records_batchflow.py", ("json", OUT, small), target=1.05),
    ]
    return Suite(__doc__ or "", contestants, measure="megabytes", same_output=False)
