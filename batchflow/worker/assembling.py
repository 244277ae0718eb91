"""Pieces into a part, on a worker."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext, suppress

from batchflow.formats import digest, format_of
from batchflow.model import Assemble, Outcome, Stats, Succeeded
from batchflow.stores.transit import incoming, outgoing
from batchflow.worker.failures import failed, over, worker_name
from batchflow.worker.guard import Guard, Overtime
from batchflow.worker.program import Limits


def assembled(work: Assemble, *, guarded: bool) -> Outcome:
    """Put pieces together; of a part that failed nothing is left.

    Parameters
    ----------
    guarded
        Whether this is a worker, where work is kept to its time.
    """
    limits = Limits(work.seconds)
    began = time.time()
    try:
        guard = Guard(*limits) if guarded else nullcontext()
        with guard, incoming(work.pieces) as pieces, outgoing(work.path) as path:
            format_of(work.format).assemble(pieces, work.schema, path)
            written = os.stat(path).st_size, digest(path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(work.path)
        if isinstance(error, Overtime | MemoryError):
            return over(work, error, limits)
        if isinstance(error, KeyboardInterrupt):
            raise
        return failed(work, "write", error)
    return Succeeded(work.key, Stats(worker_name(), began, time.time() - began), (), written)
