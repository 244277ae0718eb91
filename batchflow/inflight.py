"""Work that is under way, and whether there is room for more."""

from __future__ import annotations

from batchflow.executors.base import Executor
from batchflow.model import Key, Work
from batchflow.resources import Budget, Resources, amounts


class InFlight:
    """The work of one job that is at an executor.

    Parameters
    ----------
    executor
        Where it runs.
    slots
        Tasks that may run side by side; as many more wait beside them as the executor likes.
    per_task
        What one of them takes,
    budget
        of what is shared with other jobs. Then no task waits beside a running one, so that what is
        counted as in use is.
    """

    def __init__(self, executor: Executor, slots: int, per_task: Resources, budget: Budget | None) -> None:
        self._executor = executor
        self._most = slots * (1 + executor.prefetch) if budget is None else slots
        self._need = amounts(per_task)
        self._budget = budget
        self._work: dict[Key, Work] = {}

    def __len__(self) -> int:
        return len(self._work)

    def __contains__(self, key: Key) -> bool:
        return key in self._work

    @property
    def has_room(self) -> bool:
        """Whether one more piece of work may begin."""
        return len(self._work) < self._most and (self._budget is None or self._budget.fits(self._need))

    def begin(self, job: int, work: Work) -> None:
        """Give work to the executor, for a program that it knows by this number."""
        self._work[work.key] = work
        if self._budget is not None:
            self._budget.take(self._need)
            self._executor.grow(self._budget.tasks)
        self._executor.submit(job, work)

    def end(self, key: Key) -> Work | None:
        """Return the work that an outcome is of, which is no more under way; ``None`` if there is none."""
        work = self._work.pop(key, None)
        if work is not None and self._budget is not None:
            self._budget.give(self._need)
        return work

    def give_up(self) -> None:
        """Count nothing as under way any more."""
        for key in list(self._work):
            self.end(key)
