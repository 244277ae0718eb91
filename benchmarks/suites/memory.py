"""Does the driver need more memory when the input is sixteen times as large?

The job of `one_file`, with 16, 64 and 256 MB; what counts is the peak of the driver's own resident memory, not
that of its workers.
"""

from __future__ import annotations

from benchmarks.harness import OUT, Contestant, Suite
from datasets import events_jsonl

BYTES = 16_000_000


def suite(scale: float) -> Suite:
    """Return the race of the job with itself: the large one must not need more than the small one."""
    one, four, sixteen = (str(events_jsonl(int(BYTES * scale * times))) for times in (1, 4, 16))
    contestants = [
        Contestant("16 times as large", "records_batchflow.py", ("json", OUT, sixteen)),
        Contestant("4 times as large", "records_batchflow.py", ("json", OUT, four)),
        Contestant("small", "records_batchflow.py", ("json", OUT, one), target=1.05),
    ]
    return Suite(__doc__ or "", contestants, measure="megabytes", same_output=False)
