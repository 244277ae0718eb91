"""What earlier runs did, told once more from the ledger, in input order."""

from __future__ import annotations

from collections.abc import Iterable

from batchflow.combining.errors_table import ErrorTable
from batchflow.combining.order import Numbering, Settled
from batchflow.combining.recovery import in_order
from batchflow.events import ChunkSettled, JobEnded, Listener
from batchflow.ledger import History
from batchflow.model import Input, Task


def replay(history: History, inputs: tuple[Input, ...], listeners: Iterable[Listener] = ()) -> ErrorTable:
    """Tell listeners of every chunk of a ledger, and return the error table."""
    errors = ErrorTable()
    numbering = Numbering()
    told = list(listeners)
    for key, _, done in in_order(history.chunks, inputs):
        settled = numbering.number(Settled(Task(key, done.chunk), done.stats, done.failures, None, done.counted))
        errors.add(settled.failures)
        for listener in told:
            listener(ChunkSettled(key, settled.chunk, settled.stats, settled.failures, before=True))
    for listener in told:
        listener(JobEnded(history.ended))
    return errors
