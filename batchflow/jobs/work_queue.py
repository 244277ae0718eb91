"""Pending and submitted work of a job."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Iterable

from batchflow.core.chunks import Key
from batchflow.core.resources import Budget, Resources, amounts
from batchflow.core.work import Task, WorkItem
from batchflow.executors.base import Executor


class PendingQueue:
    """Queue of pending work: work of the combiner first, then retries, then work that is due.

    Suspects stand apart: they are tried with nothing beside them.
    """

    def __init__(self) -> None:
        self._delegated: deque[WorkItem] = deque()
        self._again: deque[Task] = deque()
        self._later: list[tuple[float, Key, Task]] = []
        self._suspects: deque[tuple[float, Task]] = deque()

    def __bool__(self) -> bool:
        return bool(self._delegated or self._again or self._later or self._suspects)

    def delegate(self, work: WorkItem) -> None:
        """Add work of the combiner."""
        self._delegated.append(work)

    def again(self, tasks: Iterable[Task]) -> None:
        """Add tasks to run as soon as there is room."""
        self._again.extend(tasks)

    def later(self, task: Task, seconds: float) -> None:
        """Add a task to run after a delay."""
        heapq.heappush(self._later, (time.monotonic() + seconds, task.key, task))

    def suspect(self, task: Task, seconds: float = 0.0) -> None:
        """Add a task to run alone after a delay; no other task starts before it has run."""
        self._suspects.append((time.monotonic() + seconds, task))

    @property
    def waiting(self) -> int:
        """Number of tasks that are delayed or lack room."""
        return len(self._later)

    @property
    def suspects(self) -> int:
        """Number of tasks to run alone."""
        return len(self._suspects)

    @property
    def due(self) -> float | None:
        """Seconds until the next delayed task is due, ``None`` if there is none."""
        first = self._suspects or self._later
        return max(0.0, first[0][0] - time.monotonic()) if first else None

    def next_suspect(self) -> Task | None:
        """Return the next task to run alone, ``None`` if it is not due."""
        return self._suspects.popleft()[1] if self._suspects and self.due == 0.0 else None

    def next(self) -> WorkItem | None:
        """Return the next work, ``None`` if none is due."""
        if self._delegated:
            return self._delegated.popleft()
        if self._again:
            return self._again.popleft()
        return heapq.heappop(self._later)[2] if self.due == 0.0 else None


SHORT_SECONDS = 0.02
"""Target duration of a batch of short tasks in seconds, long against the cost of a message."""
SHORT_TASKS = 64
"""Short tasks in a row before batches are formed; a long task delays the results of its batch."""
FOLLOW_SECONDS = 1.0
"""Seconds between checks of an elastic executor for its capacity."""


class SubmittedTasks:
    """Submitted work of one job at an executor.

    Parameters
    ----------
    executor
        Where it runs.
    limits
        Caps of the job.
    per_task
        What one task takes,
    budget
        of what is shared with other jobs. Then no task waits beside a running one, so that what is
        counted as in use is.
    fixed
        Whether the user has fixed the size of chunks. Then short ones go together; else they would be larger.
    ahead
        Whether a task may wait beside a running one: that spares the time of a message, but it has its size before
        the other one has told anything.

    overlap
        Tasks beside a running one whose calls may begin while its last ones are waited for.

    Attributes
    ----------
    slots : int
        Tasks that may run side by side; as many more wait beside them as the executor likes.
    """

    def __init__(
        self,
        executor: Executor,
        limits: Resources,
        per_task: Resources,
        budget: Budget | None,
        *,
        fixed: bool = False,
        ahead: bool = True,
        overlap: int = 0,
    ) -> None:
        self._executor = executor
        self._request = (limits, per_task)
        self._need = amounts(per_task)
        self._budget = budget
        self._work: dict[Key, WorkItem] = {}
        self.slots: int = executor.slots(limits, per_task)
        prefetch = max(overlap, executor.prefetch if ahead else 0)
        self._prefetch = prefetch if budget is None else 0
        self._asked = time.monotonic()
        self._bundle = executor.bundle if fixed and budget is None else 1
        self._together = 1
        """Number of tasks per batch."""
        self._short = 0
        """Number of short tasks in a row."""
        self._gathered: list[WorkItem] = []

    def follow(self, job: int) -> bool:
        """Update the slots to the capacity of the executor; returns whether they changed.

        Parameters
        ----------
        job
            Number of the program at the executor.
        """
        if not self._executor.elastic or time.monotonic() < self._asked + FOLLOW_SECONDS:
            return False
        self._asked = time.monotonic()
        before, self.slots = self.slots, self._executor.slots(*self._request)
        if self.slots == before:
            return False
        self._executor.resize(job, self.slots)
        return True

    @property
    def has_machine(self) -> bool:
        """Whether the job has one machine for itself, so that its task durations measure the machine."""
        return self._budget is None and not self._executor.elastic

    def __len__(self) -> int:
        return len(self._work)

    def __contains__(self, key: Key) -> bool:
        return key in self._work

    @property
    def has_room(self) -> bool:
        """Whether another piece of work may start."""
        most = self.slots * (1 + self._prefetch) * self._together
        return len(self._work) < most and (self._budget is None or self._budget.fits(self._need))

    def begin(self, job: int, work: WorkItem) -> None:
        """Submit work to the executor, for a program number; short work is gathered until `flush`."""
        self._work[work.key] = work
        if self._together > 1 and isinstance(work, Task) and work.attempt == 1 and not work.alone:
            self._gathered.append(work)
            return
        if self._budget is not None:
            self._budget.take(self._need)
            self._executor.grow(self._budget.tasks)
        self._executor.submit(job, work)

    def flush(self, job: int) -> None:
        """Submit the gathered work."""
        for at in range(0, len(self._gathered), self._together):
            self._executor.submit_all(job, self._gathered[at : at + self._together])
        self._gathered.clear()

    def learn(self, seconds: float) -> None:
        """Record the duration of a task."""
        if self._bundle > 1:
            room = int(SHORT_SECONDS / max(seconds, 1e-6))
            self._short = self._short + 1 if room > 1 else 0
            self._together = min(self._bundle, room, 2 * self._together) if self._short >= SHORT_TASKS else 1

    def end(self, key: Key) -> WorkItem | None:
        """Remove and return the work of an outcome; ``None`` if it was not submitted."""
        work = self._work.pop(key, None)
        if work is not None and self._budget is not None:
            self._budget.give(self._need)
        return work

    def give_up(self) -> None:
        """Drop all submitted work."""
        for key in list(self._work):
            self.end(key)
