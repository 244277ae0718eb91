"""Does the driver need more memory when the input is sixteen times as large?

The job of `one_file`, with 16, 64 and 256 MB; what counts is the peak of the driver's own resident memory, not
that of its workers.
"""

from __future__ import annotations

from benchmarks.harness import OUT, Contestant, Suite
from datasets import events_jsonl

BYTES = 16_000_000
_TOGETHER = """
What do driver, workers and all else that was started take together at most, beside peers that stream as well?

256 MB, sampled 20 times a second; pages that processes share count once.
"""


def suites(scale: float) -> dict[str, Suite]:
    """Return the race of the job with itself: the large one must not need more; and one with the peers."""
    one, four, sixteen = (str(events_jsonl(int(BYTES * scale * times))) for times in (1, 4, 16))
    driver = [
        Contestant("16 times as large", "records_batchflow.py", ("json", OUT, sixteen)),
        Contestant("4 times as large", "records_batchflow.py", ("json", OUT, four)),
        Contestant("small", "records_batchflow.py", ("json", OUT, one), target=1.05),
    ]
    args = ("json", OUT, sixteen)
    together = [
        Contestant("batchflow", "records_batchflow.py", args),
        Contestant("limit: two processes by hand", "one_file_by_hand.py", (sixteen, OUT)),
        Contestant("Dask, bag", "records_dask.py", args, target=1.0, needs="dask"),
        Contestant("Daft", "records_daft.py", args, target=1.0, needs="daft"),
        Contestant("Ray Data", "records_ray_data.py", args, target=1.0, needs="pandas"),
    ]
    return {
        "memory: driver": Suite(__doc__ or "", driver, measure="megabytes", same_output=False),
        "memory: all": Suite(_TOGETHER, together, measure="together"),
    }
