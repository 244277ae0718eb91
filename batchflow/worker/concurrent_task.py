"""A task whose calls wait side by side: a window of them slides over its records, across blocks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from batchflow.core.outcomes import Failure, Stats
from batchflow.core.work import Task
from batchflow.io.sources.base import Block
from batchflow.worker.concurrency import ConcurrencyBackend
from batchflow.worker.invocation import RecordCall
from batchflow.worker.position import NEARLY
from batchflow.worker.program import Program
from batchflow.worker.record_task import RecordTask
from batchflow.worker.task import PASSING, JobState

AHEAD = 4
"""Records behind the block that is waited for, as a multiple of the calls at once, before no more are read."""
LOOK_SECONDS = 0.01
"""After what time an event loop that is busy at the time limit is looked at again,"""
LOOKS = 20
"""so many times at most: one that a call blocks is never found idle."""


class _Group:
    """A block whose calls have begun, or are about to."""

    def __init__(self, block: Block, rows: Sequence[Any], unread: list[Failure]) -> None:
        self.block = block
        self.unread = unread
        self.calls = [RecordCall(self, at, record) for at, record in enumerate(rows)]
        self.left = len(self.calls)
        self.seconds = 0.0
        """That its calls took, together."""


class Overlap:
    """Tasks after the one at hand, whose calls begin while its last ones are waited for.

    Attributes
    ----------
    more
        Returns one of the tasks that wait, by its index, ``None`` if it may not begin yet.
    """

    def __init__(self) -> None:
        self.runs: deque[ConcurrentRecordTask] = deque()
        self.more: Callable[[int], Task | None] | None = None

    def fill(self, lanes: ConcurrencyBackend, make: Callable[[Task], ConcurrentRecordTask]) -> None:
        """Begin calls of later tasks as long as there are free lanes."""
        while not lanes.full:
            if not self.runs or self.runs[-1].begun:
                task = self.more(len(self.runs)) if self.more is not None else None
                if task is None:
                    return
                self.runs.append(make(task))
            run = self.runs[-1]
            run.advance()
            if not run.begun:
                return

    def take(self, task: Task, lanes: ConcurrencyBackend) -> ConcurrentRecordTask | None:
        """Return the run of a task, if it has begun; others that came to nothing are given up."""
        if self.runs and self.runs[0].task.key == task.key:
            return self.runs.popleft()
        if self.runs:
            self.settle(lanes)
        return None

    def settle(self, lanes: ConcurrencyBackend) -> None:
        """Give up all calls on their way; tasks whose calls had begun start again in their turn."""
        self.runs.clear()
        lanes.settle()


class ConcurrentRecordTask(RecordTask):
    """Calls the function for some records at once; everything else is as if they came one after the other.

    Parameters
    ----------
    lanes
        Where the calls run.
    """

    fine: ClassVar[bool] = False

    def __init__(
        self, program: Program, task: Task, extra: tuple[Any, ...], state: JobState, lanes: ConcurrencyBackend
    ) -> None:
        super().__init__(program, task, extra, state)
        self._lanes = lanes
        self._groups: deque[_Group] = deque()
        self._held = 0
        self.begun: bool = False
        """Whether all calls have begun."""
        self._progress = self._steps()
        self._problem: BaseException | None = None
        self._seconds = 0.0
        self._looks = 0
        self.overlap: Overlap | None = None
        lanes.ready(extra)

    def advance(self) -> None:
        """Begin calls before the turn of this run, as long as there are free lanes."""
        try:
            next(self._progress, None)
        except PASSING:
            raise
        except BaseException as error:
            self._problem, self.begun = error, True

    def stats(self) -> Stats:
        """Return what the task did so far."""
        lanes = self._seconds / self._lanes.count if self._lanes.count > 1 else 0.0
        return super().stats()._replace(lanes=lanes)

    def work(self) -> None:
        """Call, block after block, without waiting for one before the next."""
        try:
            if self._problem is not None:
                raise self._problem
            self._lanes.run(self._together())
        except PASSING:
            raise  # whoever has the lanes ends them
        except BaseException:
            if self.overlap is None:
                self._lanes.settle()
            else:
                self.suspect: bool = bool(self.overlap.runs)
                self.overlap.settle(self._lanes)
            raise

    def seconds_left(self, limit: float) -> float:
        """Return the seconds that the longest call has left of a time limit; notes which it is if there are none.

        Where many calls take longer than the limit none is noted: they may slow each other down, so the task is
        halved. Nor is one noted while another call has the event loop.
        """
        now = time.monotonic()
        calls = [call for group in list(self._groups) for call in group.calls if call.entered]
        suspects = self._lanes.suspects(calls)
        late = [call for call in calls if now - call.entered >= limit * NEARLY]
        if not late:
            longest = max((now - call.entered for call in suspects), default=0.0)
            return limit - longest if longest >= limit / 2 else 0.0
        if len(late) > max(1, len(calls) // 2):
            return 0.0
        guilty = [call for call in late if call in suspects]
        if guilty:
            call = min(guilty, key=lambda call: call.entered)
            block = call.group.block
            span = next(at for at, span in enumerate(self.task.chunk.spans) if span is block.span)
            self.state.position.note(span, block.numbers[call.at], since=call.entered)
            return 0.0
        self._looks += 1
        return LOOK_SECONDS if self._looks <= LOOKS else 0.0

    def _together(self) -> Iterator[None]:
        """Go through the own steps, and once all calls have begun through those of later tasks."""
        for _ in self._progress:
            if self.begun and self.overlap is not None:
                self.overlap.fill(self._lanes, self._later)
                if self._groups and not self._groups[0].left:
                    continue  # its last call landed as others began
            yield

    def _later(self, task: Task) -> ConcurrentRecordTask:
        run = ConcurrentRecordTask(self.program, task, self.extra, self.state, self._lanes)
        run.overlap = self.overlap
        return run

    def _steps(self) -> Iterator[None]:
        """Begin the calls; stops wherever one has to land before it goes on."""
        for block in self.blocks:
            group = self._opened(block)
            for call in group.calls:
                while self._lanes.full:
                    yield
                    self._land()
                call.since = time.monotonic()
                self._lanes.begin(call)
            self._land()
            while self._crowded():
                yield
                self._land()
            self.clock.lap("call")
        self.begun = True
        while self._groups:
            yield
            self._land()

    def _opened(self, block: Block) -> _Group:
        """Return a block as it is called; what could not be read of it is told when its turn has come."""
        unread = self.unread(block)
        group = _Group(*self.readable(block, unread), unread)
        self._groups.append(group)
        self._held += len(group.calls)
        return group

    def _crowded(self) -> bool:
        """Whether much is done that waits for its turn."""
        return bool(self._groups) and self._held - len(self._groups[0].calls) > AHEAD * self._lanes.count

    def _land(self) -> None:
        """Take over the calls that have landed, and hand over the blocks whose turn it is."""
        while self._lanes.landed:
            call = self._lanes.landed.popleft()
            call.group.left -= 1
            call.group.seconds += time.monotonic() - call.since
        while self._groups and not self._groups[0].left:
            self._finish(self._groups.popleft())

    def _finish(self, group: _Group) -> None:
        block, first, before = group.block, len(self.failures), self.rows
        self._held -= len(group.calls)
        self._seconds += group.seconds
        self.failures.extend(group.unread)
        values: list[Any] = []
        owners: list[int] = []
        for call in group.calls:
            self.retries += call.tries - 1
            values += call.values
            owners += [call.at] * len(call.values)
            if call.error is not None:
                self.fail(block, call.at, "call", call.error, call.tries)
        self.add(block, 0, len(self.failures) - first - len(group.unread))
        self.clock.lap("call")
        group.calls.clear()  # which know it: nothing waits for the garbage collector
        self.keep(block, values, owners, first, before)
