"""Worker-side code: read a chunk, call the function, convert and write the results.

Nothing here raises to the executor. Every error becomes a failure of the record at fault, or of the whole
chunk if no single record is.
"""

from batchflow.worker.failures import died, failed, lost, over, placed
from batchflow.worker.limits import (
    OVERTIME,
    TaskLimits,
    TaskTimeout,
    end_with_parent,
    settle,
    too_slow,
    was_overtime,
)
from batchflow.worker.program import Limits, Program
from batchflow.worker.runner import CALLS, PROGRAM_FREE_WORK, Runner, can_overlap, run_without_program
from batchflow.worker.step_call import StepHandle, finished_value, found, value_of

__all__ = [
    "CALLS",
    "OVERTIME",
    "PROGRAM_FREE_WORK",
    "Limits",
    "Program",
    "Runner",
    "StepHandle",
    "TaskLimits",
    "TaskTimeout",
    "can_overlap",
    "died",
    "end_with_parent",
    "failed",
    "finished_value",
    "found",
    "lost",
    "over",
    "placed",
    "run_without_program",
    "settle",
    "too_slow",
    "value_of",
    "was_overtime",
]
