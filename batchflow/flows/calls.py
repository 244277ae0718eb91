"""The steps of a flow that are calls: each in its turn within the budget, short ones sent ahead.

::

    ready ──turn──> head of a line ─ follows ─ follows      (one line for each worker that is in use)
      ^                   │             │
      └── not begun <─────┴── outcome <─┘
"""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Any, Protocol

from batchflow.core.outcomes import Failed, Outcome
from batchflow.core.resources import Budget
from batchflow.core.work import NotStarted
from batchflow.executors import Executor
from batchflow.flows.step_state import StepState, build_call
from batchflow.jobs.run import StopSignal
from batchflow.worker import CALLS


class CallObserver(Protocol):
    """Receiver of the outcomes of steps."""

    def call_begins(self, step: StepState) -> None:
        """Handle the start of an attempt, as far as known."""

    def call_ended(self, step: StepState, outcome: Outcome) -> None:
        """Handle the outcome of an attempt."""

    def is_ready(self, step: StepState) -> None:
        """Handle a step that did not start and is ready again."""


class CallQueue:
    """Runs calls of a flow.

    Parameters
    ----------
    executor, budget, stop
        As for `Run`.
    hears
        Hears what became of the steps.
    """

    def __init__(self, executor: Executor, budget: Budget, stop: StopSignal, hears: CallObserver) -> None:
        self._executor = executor
        self._budget = budget
        self._stop = stop
        self._hears = hears
        self._programs: dict[tuple[Any, ...], int] = {}
        """Program numbers at the executor, by the resources of a call."""
        self._ready: dict[tuple[Any, ...], deque[StepState]] = {}
        self._lines: dict[WorkerPipeline, None] = {}
        self._under_way: dict[int, StepState] = {}
        self._pace = DurationEstimate()

    def __len__(self) -> int:
        """Return the number of running calls."""
        return len(self._under_way)

    @property
    def programs(self) -> list[int]:
        """Program numbers at the executor."""
        return list(self._programs.values())

    @property
    def are_ready(self) -> bool:
        """Whether any calls are queued."""
        return any(self._ready.values())

    @property
    def first(self) -> list[StepState]:
        """Next queued calls, one of each kind."""
        return [queue[0] for queue in self._ready.values() if queue]

    @property
    def patience(self) -> list[float]:
        """Seconds until the next check for stuck pipelines."""
        return [STUCK_SECONDS] if any(line.has_unbegun for line in self._lines) else []

    def add(self, step: StepState) -> None:
        """Queue a step that may start."""
        self._ready.setdefault(step.takes, deque()).append(step)

    def turn(self) -> None:
        """Start calls that have room, in the order of readiness, and send short ones ahead."""
        self._recall(everything=False)
        for takes, queue in self._ready.items():
            need = dict(takes)
            while queue and self._budget.fits(need):
                self._budget.take(need)
                self._start(queue.popleft())
            for line in self._lines if queue and self._executor.ahead else ():
                if line.takes == takes and line.wants_more(self._executor.ahead):
                    self._lengthen(line, queue)

    def _start(self, step: StepState) -> None:
        """Start a call, and send ahead the calls that depend on it only."""
        self._hears.call_begins(step)
        self._executor.grow(self._budget.tasks)
        line = WorkerPipeline(step.takes, self._program(step))
        self._lines[line] = None
        self._executor.submit(line.program, build_call(step))
        self._stands_in(line, step, self._pace.expected(step))
        self._extend(line)

    def _program(self, step: StepState) -> int:
        """Return the number of the program for calls with these resources."""
        program = self._programs.get(step.takes)
        if program is None:
            self._executor.start(sys.maxsize, step.spec.per_task, workers=1)
            program = self._programs[step.takes] = self._executor.load(CALLS)
        return program

    def _stands_in(self, line: WorkerPipeline, step: StepState, seconds: float) -> None:
        line.add(step, seconds)
        self._under_way[step.number] = step

    def _lengthen(self, line: WorkerPipeline, queue: deque[StepState]) -> None:
        """Send ahead calls that are ready."""
        new: list[StepState] = []
        while queue and self._joins(line, queue[0]):
            new.append(queue.popleft())
        queue.extendleft(self._send_ahead(line, new))

    def _extend(self, line: WorkerPipeline) -> None:
        """Send ahead the calls that depend on the last one of a pipeline."""
        if not line.wants_more(self._executor.ahead):
            return
        new, last = [], deque((line.steps[-1],))
        while last:
            for step in last.popleft().next:
                if step.line is None and line.waits_for_nothing_else(step) and self._joins(line, step):
                    new.append(step)
                    last.append(step)
        self._send_ahead(line, new)

    def _joins(self, line: WorkerPipeline, step: StepState) -> bool:
        """Add a call to a pipeline, if it has room."""
        seconds = self._pace.expected(step)
        if not line.has_room(seconds, self._executor.ahead):
            return False
        step.ahead = True
        self._stands_in(line, step, seconds)
        return True

    def _send_ahead(self, line: WorkerPipeline, new: list[StepState]) -> list[StepState]:
        """Send ahead the calls added to a pipeline; remove and return unsendable ones, last one first."""
        if not new:
            return []
        before = line.steps[-len(new) - 1]
        sent = self._executor.follow(line.program, [build_call(step) for step in new], (before.number,))
        line.is_open = sent == len(new)
        back = new[sent:][::-1]
        for step in back:
            step.ahead = False
            self._leaves(step)
        return back

    def hear(self, outcome: Outcome) -> None:
        """Process the outcome of a call."""
        step = self._under_way.get(outcome.key[0])
        if step is None:
            return
        assert step.line is not None
        line = step.line
        self._leaves(step)
        line.is_open = not isinstance(outcome, Failed) and not isinstance(outcome.payload, NotStarted)
        if line.is_open or isinstance(outcome, Failed):
            self._ended(step, outcome)
        else:
            self._did_not_begin(step)
        if line.steps and line.is_open and not self._stop.pressed:
            self._extend(line)

    def _ended(self, step: StepState, outcome: Outcome) -> None:
        self._knows_that_it_began(step)
        self._pace.saw(step, outcome.stats.seconds)
        self._hears.call_ended(step, outcome)

    def _knows_that_it_began(self, step: StepState) -> None:
        if step.ahead:
            step.ahead = False
            self._hears.call_begins(step)

    def _did_not_begin(self, step: StepState) -> None:
        if not step.ahead:
            step.attempts -= 1  # it was taken to have begun
        step.ahead = False
        if not step.waits:
            self._hears.is_ready(step)

    def _leaves(self, step: StepState) -> None:
        """Remove a call from its pipeline; the last one releases the pipeline's resources."""
        assert step.line is not None
        line = step.line
        del self._under_way[step.number]
        line.remove(step)
        if not line.steps:
            del self._lines[line]
            self._budget.give(dict(line.takes))

    def recall(self) -> None:
        """Recall all calls that did not start."""
        self._recall(everything=True)

    def _recall(self, *, everything: bool) -> None:
        """Recall calls that did not start, from all pipelines or from stuck ones."""
        for line in list(self._lines):
            if line.has_unbegun and (everything or line.is_stuck):
                self._take_back(line)

    def _take_back(self, line: WorkerPipeline) -> None:
        """Recall the calls of a pipeline that did not start."""
        line.is_open = False
        keys = self._executor.recall(line.program, (line.steps[0].number,))
        back = [self._under_way[number] for (number,) in keys]
        for step in reversed(back):
            self._leaves(step)
        if line.steps:
            self._knows_that_it_began(line.steps[0])
        for step in back:
            self._did_not_begin(step)

    def give_up(self) -> None:
        """Cancel running calls."""
        for program in self._programs.values():
            self._executor.unload(program)
        self._programs.clear()
        self._under_way.clear()
        self._lines.clear()


AHEAD_SECONDS = 0.001
"""Maximum expected seconds of a pipeline, and so the longest needless wait of a call."""
STUCK_SECONDS = 0.005
"""Seconds without an outcome after which the unstarted calls of a pipeline are recalled."""
_UNSEEN_SECONDS = 0.0001
"""Assumed seconds of a call whose function has not been measured."""
_SHARE = 1 / 8
"""Weight of the last call in the moving average."""


class WorkerPipeline:
    """Calls at one worker, of which the first one is running.

    Parameters
    ----------
    takes
        What it takes of the budget, whichever of its calls runs.
    program
        Number of their program at the executor.
    """

    def __init__(self, takes: tuple[tuple[str, float], ...], program: int) -> None:
        self.takes = takes
        self.program = program
        self.steps: deque[StepState] = deque()
        self.is_open = True
        """Whether more calls may be added."""
        self._since = time.monotonic()
        self._seconds = 0.0

    def wants_more(self, most: int) -> bool:
        """Whether to add several calls, because at most half of the pipeline is filled."""
        return self.is_open and 2 * len(self.steps) <= most

    def has_room(self, seconds: float, most: int) -> bool:
        """Whether a call of this expected duration fits."""
        return self.is_open and len(self.steps) <= most and self._seconds + seconds <= AHEAD_SECONDS

    def add(self, step: StepState, seconds: float) -> None:
        """Append a call."""
        step.line, step.seconds = self, seconds
        self.steps.append(step)
        self._seconds += seconds

    def remove(self, step: StepState) -> None:
        """Remove a call that ended, was recalled or did not start."""
        self.steps.remove(step)
        step.line = None
        self._seconds -= step.seconds
        self._since = time.monotonic()

    def waits_for_nothing_else(self, step: StepState) -> bool:
        """Whether a step depends only on calls of this pipeline."""
        if step.waits > len(self.steps) or not step.can_follow or step.takes != self.takes:
            return False
        if any(one.state is None or one.broken for one in step.after):
            return False
        return all(one.given is not None or one.line is self for _, steps in step.needs for one in steps)

    @property
    def has_unbegun(self) -> bool:
        """Whether some of its calls are not known to have started."""
        return len(self.steps) > 1 or self.steps[0].ahead

    @property
    def is_stuck(self) -> bool:
        """Whether it had no outcome for a while."""
        return time.monotonic() - self._since > STUCK_SECONDS


class DurationEstimate:
    """Duration estimate of calls by function."""

    def __init__(self) -> None:
        self._means: dict[Any, float] = {}

    def saw(self, step: StepState, seconds: float) -> None:
        """Record the duration of a call."""
        mean = self._means.get(step.spec.fn, seconds)
        self._means[step.spec.fn] = mean + (seconds - mean) * _SHARE

    def expected(self, step: StepState) -> float:
        """Return the expected duration of a call."""
        return self._means.get(step.spec.fn, _UNSEEN_SECONDS)
