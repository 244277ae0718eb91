"""All code that runs where the data is: read a chunk, call the function, convert, write.

Nothing here raises to the executor: whatever goes wrong becomes a failure, of a record where one is
at fault, of the chunk where not.
"""

from batchflow.worker.failures import died, failed, lost
from batchflow.worker.guard import OVERTIME, end_with_parent, too_slow, was_overtime
from batchflow.worker.program import Program
from batchflow.worker.runner import Runner

__all__ = [
    "OVERTIME", "Program", "Runner", "died", "end_with_parent", "failed", "lost", "too_slow", "was_overtime",
]  # fmt: skip
