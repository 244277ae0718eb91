"""A task whose calls wait side by side: a window of them slides over its records, across blocks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from batchflow.model import Failure, Task
from batchflow.sources.base import Block
from batchflow.worker.caller import RecordCall
from batchflow.worker.lanes import Lanes
from batchflow.worker.program import Program
from batchflow.worker.records import RecordRun
from batchflow.worker.run import PASSING, JobState

AHEAD = 4
"""Records behind the block that is waited for, as a multiple of the calls at once, before no more are read."""


class _Group:
    """A block whose calls have begun, or are about to."""

    def __init__(self, block: Block, rows: Sequence[Any], unread: list[Failure]) -> None:
        self.block = block
        self.unread = unread
        self.calls = [RecordCall(self, at, record) for at, record in enumerate(rows)]
        self.left = len(self.calls)


class WaitingRun(RecordRun):
    """Calls the function for some records at once; everything else is as if they came one after the other.

    Parameters
    ----------
    lanes
        Where the calls run.
    """

    fine: ClassVar[bool] = False

    def __init__(
        self, program: Program, task: Task, extra: tuple[Any, ...], state: JobState, lanes: Lanes
    ) -> None:
        super().__init__(program, task, extra, state)
        self._lanes = lanes
        self._groups: deque[_Group] = deque()
        self._held = 0
        lanes.ready(extra)

    def work(self) -> None:
        """Call, block after block, without waiting for one before the next."""
        try:
            self._lanes.run(self._steps())
        except PASSING:
            raise  # whoever has the lanes ends them
        except BaseException:
            self._lanes.settle()
            raise

    def _steps(self) -> Iterator[None]:
        """Begin the calls; stops wherever one has to land before it goes on."""
        for block in self.blocks:
            group = self._opened(block)
            for call in group.calls:
                while self._lanes.full:
                    yield
                    self._land()
                self._lanes.begin(call)
            self._land()
            while self._crowded():
                yield
                self._land()
            self.clock.lap("call")
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
            self._lanes.landed.popleft().group.left -= 1
        while self._groups and not self._groups[0].left:
            self._finish(self._groups.popleft())

    def _finish(self, group: _Group) -> None:
        block, first, before = group.block, len(self.failures), self.rows
        self._held -= len(group.calls)
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
