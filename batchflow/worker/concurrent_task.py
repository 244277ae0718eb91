"""Task with concurrent calls: a sliding window over its records, across blocks."""

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
"""Read-ahead limit: finished records waiting for an earlier block, as a multiple of the concurrent calls."""
LOOK_SECONDS = 0.01
"""Seconds until an event loop that is busy at the time limit is checked again."""
LOOKS = 20
"""Maximum number of such checks; a loop that a call blocks is never found idle."""


class _Group:
    """Block whose calls have started or are about to."""

    def __init__(self, block: Block, rows: Sequence[Any], unread: list[Failure]) -> None:
        self.block = block
        self.unread = unread
        self.calls = [RecordCall(self, at, record) for at, record in enumerate(rows)]
        self.left = len(self.calls)
        self.seconds = 0.0
        """Total seconds of its calls."""


class Overlap:
    """Later tasks whose calls start while the last calls of the current task are pending.

    Attributes
    ----------
    more
        Returns a waiting task by its index; ``None`` if it may not start yet.
    """

    def __init__(self) -> None:
        self.runs: deque[ConcurrentRecordTask] = deque()
        self.more: Callable[[int], Task | None] | None = None

    def fill(self, lanes: ConcurrencyBackend, make: Callable[[Task], ConcurrentRecordTask]) -> None:
        """Start calls of later tasks while there are free lanes."""
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
        """Return the run of a task if it has started; otherwise discard all started runs."""
        if self.runs and self.runs[0].task.key == task.key:
            return self.runs.popleft()
        if self.runs:
            self.settle(lanes)
        return None

    def settle(self, lanes: ConcurrencyBackend) -> None:
        """Abandon all pending calls; the tasks that they belong to start over in their turn."""
        self.runs.clear()
        lanes.settle()


class ConcurrentRecordTask(RecordTask):
    """Task with several calls at once; results are the same as for sequential calls.

    Parameters
    ----------
    lanes
        Backend that runs the calls.
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
        """Whether all calls have started."""
        self._progress = self._steps()
        self._problem: BaseException | None = None
        self._seconds = 0.0
        self._looks = 0
        self.overlap: Overlap | None = None
        lanes.ready(extra)

    def advance(self) -> None:
        """Start calls before the turn of this run, while there are free lanes."""
        try:
            next(self._progress, None)
        except PASSING:
            raise
        except BaseException as error:
            self._problem, self.begun = error, True

    def stats(self) -> Stats:
        """Return the statistics of the task so far."""
        lanes = self._seconds / self._lanes.count if self._lanes.count > 1 else 0.0
        return super().stats()._replace(lanes=lanes)

    def work(self) -> None:
        """Call the function for block after block, without waiting between blocks."""
        try:
            if self._problem is not None:
                raise self._problem
            self._lanes.run(self._together())
        except PASSING:
            raise  # the runner closes the backend
        except BaseException:
            if self.overlap is None:
                self._lanes.settle()
            else:
                self.suspect: bool = bool(self.overlap.runs)
                self.overlap.settle(self._lanes)
            raise

    def seconds_left(self, limit: float) -> float:
        """Return the seconds left until the longest call reaches the limit; note its record if none are left.

        If many calls exceed the limit, no record is noted: they may slow each other down, so the task is halved.
        Nor is a record noted while another call has the event loop.
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
        """Advance the steps of this task and, once all its calls have started, those of later tasks."""
        for _ in self._progress:
            if self.begun and self.overlap is not None:
                self.overlap.fill(self._lanes, self._later)
                if self._groups and not self._groups[0].left:
                    continue  # its last call finished while others were being started
            yield

    def _later(self, task: Task) -> ConcurrentRecordTask:
        run = ConcurrentRecordTask(self.program, task, self.extra, self.state, self._lanes)
        run.overlap = self.overlap
        return run

    def _steps(self) -> Iterator[None]:
        """Start the calls; yield whenever a call must finish first."""
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
        """Open a block for its calls; read failures are reported in the turn of the block."""
        unread = self.unread(block)
        group = _Group(*self.readable(block, unread), unread)
        self._groups.append(group)
        self._held += len(group.calls)
        return group

    def _crowded(self) -> bool:
        """Whether too many finished records are waiting for their turn."""
        return bool(self._groups) and self._held - len(self._groups[0].calls) > AHEAD * self._lanes.count

    def _land(self) -> None:
        """Collect finished calls and hand over the blocks whose turn it is."""
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
        group.calls.clear()  # breaks the reference cycle, so that memory is freed at once
        self.keep(block, values, owners, first, before)
