"""All code that runs where the data is: read a chunk, call the function, convert, write.

Nothing here raises to the executor: whatever goes wrong becomes a failure, of a record where one is
at fault, of the chunk where not.
"""

from batchflow.worker.calls import Handle, finished_value, found, value_of
from batchflow.worker.failures import died, failed, lost, over, placed
from batchflow.worker.guard import OVERTIME, Guard, Overtime, end_with_parent, settle, too_slow, was_overtime
from batchflow.worker.program import Limits, Program
from batchflow.worker.runner import BARE, CALLS, Runner, bare, can_overlap

__all__ = [
    "BARE",
    "CALLS",
    "OVERTIME",
    "Guard",
    "Handle",
    "Limits",
    "Overtime",
    "Program",
    "Runner",
    "bare",
    "can_overlap",
    "died",
    "end_with_parent",
    "failed",
    "finished_value",
    "found",
    "lost",
    "over",
    "placed",
    "settle",
    "too_slow",
    "value_of",
    "was_overtime",
]
