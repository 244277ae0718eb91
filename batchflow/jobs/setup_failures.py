"""Handling of failures in ``setup=``: chunks are retried, or the job ends."""

from __future__ import annotations

from collections import Counter

from batchflow.core.chunks import Key
from batchflow.core.outcomes import Failed, Failure
from batchflow.core.retry import Retry
from batchflow.core.work import Task

TRIES = 3
"""Times that ``setup=`` may fail for one chunk after it has worked on another worker. Before that, the times that
it may kill all workers that call it: whatever else killed one does not kill three."""
_DELAY = 0.2
"""Seconds before the next attempt, doubled each time, so that another worker may take the chunk."""


class SetupError(Exception):
    """Failure of ``setup=`` on all workers."""

    def __init__(self, failure: Failure, *, works_elsewhere: bool) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.works_elsewhere = works_elsewhere


class SetupFailures:
    """Decides whether a failed ``setup=`` condemns its worker or the job.

    Before it has worked on any worker, chunks are held until the tasks under way have ended: if one of them
    shows that it works, the first worker was the trouble, otherwise the job stops. It is never a record's error.
    """

    def __init__(self) -> None:
        self.works = False
        """Whether ``setup=`` has worked on any worker."""
        self.held: list[Task] = []
        """Chunks held until that is known."""
        self._killed = False
        """Whether ``setup=`` killed the worker of a held chunk."""
        self._rounds = 0
        """Number of rounds in which all workers failed."""
        self._first: Failure | None = None
        self._counts: Counter[Key] = Counter()

    def delay(self, task: Task, outcome: Failed, retry: Retry) -> float | None:
        """Return the seconds before a chunk is retried, ``None`` if it is held.

        Raises
        ------
        SetupError
            If it has worked on other workers, but failed for this chunk as often as it may.
        """
        self._first = self._first or outcome.failure
        self._counts[task.key] += 1
        tries = self._counts[task.key]
        if outcome.helped and tries < retry.tries(asked=outcome.after is not None):
            return float(max(outcome.after or 0.0, retry.delay(tries)))
        if not self.works:
            self.held.append(task)
            self._killed |= outcome.died
            return None
        if tries >= TRIES:
            raise SetupError(outcome.failure, works_elsewhere=True)
        return _DELAY * 2.0 ** (tries - 1)

    def release(self, *, running: bool) -> list[Task] | None:
        """Return the held chunks to retry, ``None`` while it is unknown whether ``setup=`` works.

        If it killed its workers, one of these chunks shows whether it does so again.

        Raises
        ------
        SetupError
            If it has worked on no worker, and none is left that tries it.
        """
        if self.held and not self.works:
            if running:
                return None
            assert self._first is not None
            self._rounds += 1
            if not self._killed or self._rounds == TRIES:
                raise SetupError(self._first, works_elsewhere=False)
            self._killed = False
            return [self.held.pop(0)]
        released, self.held = self.held, []
        return released
