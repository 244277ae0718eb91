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
    """Hears what became of the steps."""

    def call_begins(self, step: StepState) -> None:
        """Hear that one began a try, as far as is known."""

    def call_ended(self, step: StepState, outcome: Outcome) -> None:
        """Hear what came of a try."""

    def is_ready(self, step: StepState) -> None:
        """Hear that one which did not begin may begin now."""


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
        """At the executor, by what each call takes."""
        self._ready: dict[tuple[Any, ...], deque[StepState]] = {}
        self._lines: dict[WorkerPipeline, None] = {}
        self._under_way: dict[int, StepState] = {}
        self._pace = DurationEstimate()

    def __len__(self) -> int:
        """Return how many are under way."""
        return len(self._under_way)

    @property
    def programs(self) -> list[int]:
        """Their numbers at the executor."""
        return list(self._programs.values())

    @property
    def are_ready(self) -> bool:
        """Whether any wait for their turn."""
        return any(self._ready.values())

    @property
    def first(self) -> list[StepState]:
        """Those that are next, one of each kind."""
        return [queue[0] for queue in self._ready.values() if queue]

    @property
    def patience(self) -> list[float]:
        """Seconds after which to look whether a line is stuck."""
        return [STUCK_SECONDS] if any(line.has_unbegun for line in self._lines) else []

    def add(self, step: StepState) -> None:
        """Take a step that may begin."""
        self._ready.setdefault(step.takes, deque()).append(step)

    def turn(self) -> None:
        """Begin what has room, in the order in which it was ready, and send ahead what is short."""
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
        """Begin a call, and send ahead those that wait for it only."""
        self._hears.call_begins(step)
        self._executor.grow(self._budget.tasks)
        line = WorkerPipeline(step.takes, self._program(step))
        self._lines[line] = None
        self._executor.submit(line.program, build_call(step))
        self._stands_in(line, step, self._pace.expected(step))
        self._extend(line)

    def _program(self, step: StepState) -> int:
        """Return the number of a program for calls that take so much."""
        program = self._programs.get(step.takes)
        if program is None:
            self._executor.start(sys.maxsize, step.spec.per_task, workers=1)
            program = self._programs[step.takes] = self._executor.load(CALLS)
        return program

    def _stands_in(self, line: WorkerPipeline, step: StepState, seconds: float) -> None:
        line.add(step, seconds)
        self._under_way[step.number] = step

    def _lengthen(self, line: WorkerPipeline, queue: deque[StepState]) -> None:
        """Send those ahead that are ready."""
        new: list[StepState] = []
        while queue and self._joins(line, queue[0]):
            new.append(queue.popleft())
        queue.extendleft(self._send_ahead(line, new))

    def _extend(self, line: WorkerPipeline) -> None:
        """Send those ahead that wait for the last one of a line, and for others in it."""
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
        """Have a call that is to be sent ahead stand in a line, if there is room."""
        seconds = self._pace.expected(step)
        if not line.has_room(seconds, self._executor.ahead):
            return False
        step.ahead = True
        self._stands_in(line, step, seconds)
        return True

    def _send_ahead(self, line: WorkerPipeline, new: list[StepState]) -> list[StepState]:
        """Send calls ahead that joined a line; those that cannot be leave it and are returned, last one first."""
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
        """Take over what came of a call."""
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
        """Take a call out of its line; the last one gives back what the line took of the budget."""
        assert step.line is not None
        line = step.line
        del self._under_way[step.number]
        line.remove(step)
        if not line.steps:
            del self._lines[line]
            self._budget.give(dict(line.takes))

    def recall(self) -> None:
        """Take back all that did not begin."""
        self._recall(everything=True)

    def _recall(self, *, everything: bool) -> None:
        """Take back what did not begin; of all lines, or of those that are stuck."""
        for line in list(self._lines):
            if line.has_unbegun and (everything or line.is_stuck):
                self._take_back(line)

    def _take_back(self, line: WorkerPipeline) -> None:
        """Take back what did not begin; what is left of a line begins with what runs."""
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
        """Cancel what is under way."""
        for program in self._programs.values():
            self._executor.unload(program)
        self._programs.clear()
        self._under_way.clear()
        self._lines.clear()


AHEAD_SECONDS = 0.001
"""What a line may take, as far as can be told: so long, at most, does a call wait in vain for a worker."""
STUCK_SECONDS = 0.005
"""After what time without an outcome the calls of a line that did not begin are taken back."""
_UNSEEN_SECONDS = 0.0001
"""What a call is taken to take before one of its function was seen: some may follow, and be taken back."""
_SHARE = 1 / 8
"""Weight of the last call in the mean."""


class WorkerPipeline:
    """Calls at one worker, of which the first one runs.

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
        """Whether more may follow."""
        self._since = time.monotonic()
        self._seconds = 0.0

    def wants_more(self, most: int) -> bool:
        """Whether others are to follow: several together, so not while more than half of the most stand in it."""
        return self.is_open and 2 * len(self.steps) <= most

    def has_room(self, seconds: float, most: int) -> bool:
        """Whether a call may follow that takes so long, as far as can be told."""
        return self.is_open and len(self.steps) <= most and self._seconds + seconds <= AHEAD_SECONDS

    def add(self, step: StepState, seconds: float) -> None:
        """Have a call stand last."""
        step.line, step.seconds = self, seconds
        self.steps.append(step)
        self._seconds += seconds

    def remove(self, step: StepState) -> None:
        """Take out a call that came to its end, was taken back or did not begin."""
        self.steps.remove(step)
        step.line = None
        self._seconds -= step.seconds
        self._since = time.monotonic()

    def waits_for_nothing_else(self, step: StepState) -> bool:
        """Whether all that a step still waits for are values of calls in this line."""
        if step.waits > len(self.steps) or not step.can_follow or step.takes != self.takes:
            return False
        if any(one.state is None or one.broken for one in step.after):
            return False
        return all(one.given is not None or one.line is self for _, steps in step.needs for one in steps)

    @property
    def has_unbegun(self) -> bool:
        """Whether there are calls in it that are not known to have begun."""
        return len(self.steps) > 1 or self.steps[0].ahead

    @property
    def is_stuck(self) -> bool:
        """Whether nothing came of it for a while."""
        return time.monotonic() - self._since > STUCK_SECONDS


class DurationEstimate:
    """How long calls take, by their function."""

    def __init__(self) -> None:
        self._means: dict[Any, float] = {}

    def saw(self, step: StepState, seconds: float) -> None:
        """Note how long a call took."""
        mean = self._means.get(step.spec.fn, seconds)
        self._means[step.spec.fn] = mean + (seconds - mean) * _SHARE

    def expected(self, step: StepState) -> float:
        """Return how long a call will take, as far as can be told."""
        return self._means.get(step.spec.fn, _UNSEEN_SECONDS)
