"""What is to be done beside new chunks: work of the combiner, and chunks that are tried again."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Iterable

from batchflow.model import Key, Task, Work


class Backlog:
    """Work in the order in which it is to be done: the combiner's, what is tried again, what is due by now.

    Suspects stand apart: they are tried with nothing beside them.
    """

    def __init__(self) -> None:
        self._delegated: deque[Work] = deque()
        self._again: deque[Task] = deque()
        self._later: list[tuple[float, Key, Task]] = []
        self._suspects: deque[tuple[float, Task]] = deque()

    def __bool__(self) -> bool:
        return bool(self._delegated or self._again or self._later or self._suspects)

    def delegate(self, work: Work) -> None:
        """Take over work of the combiner."""
        self._delegated.append(work)

    def again(self, tasks: Iterable[Task]) -> None:
        """Take over tasks to be done as soon as there is room."""
        self._again.extend(tasks)

    def later(self, task: Task, seconds: float) -> None:
        """Take over a task to be done after some time."""
        heapq.heappush(self._later, (time.monotonic() + seconds, task.key, task))

    def suspect(self, task: Task, seconds: float = 0.0) -> None:
        """Take over a task to be done by itself after some time; nothing else begins before it has been."""
        self._suspects.append((time.monotonic() + seconds, task))

    @property
    def waiting(self) -> int:
        """Tasks whose time has not come, or that had no room since."""
        return len(self._later)

    @property
    def suspects(self) -> int:
        """Tasks that are to be done by themselves."""
        return len(self._suspects)

    @property
    def due(self) -> float | None:
        """Seconds until the time of what comes next, ``None`` where nothing waits for its time."""
        first = self._suspects or self._later
        return max(0.0, first[0][0] - time.monotonic()) if first else None

    def next_suspect(self) -> Task | None:
        """Return what to do by itself, ``None`` where its time has not come."""
        return self._suspects.popleft()[1] if self._suspects and self.due == 0.0 else None

    def next(self) -> Work | None:
        """Return what to do next, ``None`` where there is nothing yet."""
        if self._delegated:
            return self._delegated.popleft()
        if self._again:
            return self._again.popleft()
        return heapq.heappop(self._later)[2] if self.due == 0.0 else None
