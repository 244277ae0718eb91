"""The one loop of a job: admit, submit, wait, halve, settle, tell.

::

    source ──cursor──> chunks ──admit──> executor ──wait──> outcomes
               ^ sizer                      ^                   │
               └──── how long it took ──────┼───────────────────┤
                                            │   a chunk that failed whole comes back
                                            └──── halves ───────┤   in halves, until the
                                                                │   guilty record is alone
    listeners <── events ── settled, in input order <───────────┘

Only here are attempts counted, and only here is decided what is tried again. The driver holds
chunks in flight and references to results, never rows.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from batchflow.combining.order import Numbering, Sequencer, Settled
from batchflow.events import ChunkSettled, Event, JobEnded, JobStarted, Listener, TaskEnded
from batchflow.executors.base import Executor
from batchflow.model import Failed, Failure, Inspect, Key, Outcome, SpanCount, Stats, Succeeded, Task, Work
from batchflow.plan import Plan
from batchflow.sources.base import Drawn
from batchflow.splitting import FIRST_BYTES, FIRST_RECORDS, ChunkSizer
from batchflow.worker import Program

_END: Key = (sys.maxsize,)
AHEAD = 4
"""Chunks for each slot that may be finished but not yet taken, where a consumer takes them one by one."""
HEAVY_SHARE = 8
"""A file that cannot be cut goes first if it is more than one eighth of what a slot gets."""


class Scheduler:
    """Runs the chunks of a plan on an executor and gives them back settled.

    Parameters
    ----------
    plan
        What to run.
    executor
        Where to run it; started and given back by the caller.
    program
        What the workers need of the job.
    listeners
        Hear every event.
    bounded
        Do not run further ahead of the consumer than `AHEAD` chunks for each slot.
    early
        Takes each payload as it comes, in the order of completion; `settled` then gives none.
    """

    def __init__(
        self,
        plan: Plan,
        executor: Executor,
        program: Program,
        listeners: Iterable[Listener] = (),
        *,
        bounded: bool = False,
        early: Callable[[Any], None] | None = None,
    ) -> None:
        self._plan = plan
        self._executor = executor
        self._program = program
        self._listeners = list(listeners)
        self._early = early
        self._slots = executor.slots(plan.spec.limits, plan.spec.per_task)
        self._ahead = AHEAD * self._slots if bounded else sys.maxsize
        heavy = None if bounded or not plan.total else plan.total // (self._slots * HEAVY_SHARE)
        self._cursor = plan.source.cursor(plan.inputs, heavy)
        first = FIRST_RECORDS if plan.source.in_memory else FIRST_BYTES
        self._sizer = ChunkSizer(plan.total, self._slots, first, plan.chunk_weight)
        self._drained = False
        self._again: deque[Task] = deque()
        self._delegated: deque[Work] = deque()
        self._callbacks: dict[Key, Callable[[Outcome], None]] = {}
        self._running: dict[Key, Work] = {}
        self._deaths: dict[Key, Failed] = {}
        self._order = Sequencer()
        self._numbering = Numbering()
        self._job = 0

    def open(self) -> None:
        """Start workers and ship the program."""
        self._executor.start(self._slots, self._plan.spec.per_task)
        self._job = self._executor.load(self._program)
        unit = "records" if self._plan.source.in_memory else "bytes"
        self._tell(JobStarted(unit, self._plan.total, self._executor.name, self._slots))

    def close(self, *, complete: bool) -> None:
        """Give up what is still running and forget the program."""
        self._executor.unload(self._job)
        self._tell(JobEnded(complete))

    def announce(self, settled: Settled) -> Settled:
        """Tell the listeners of a chunk that will not change any more; return it with its records numbered."""
        settled = self._numbering.number(settled)
        self._tell(ChunkSettled(settled.key, settled.chunk, settled.stats, settled.failures))
        return settled

    def redo(self, task: Task) -> Settled:
        """Do a settled chunk once more, as another task; returns when it is done, while the others go on."""
        outcomes: list[Outcome] = []
        self.delegate(task, outcomes.append)
        while not outcomes:
            self.turn()
        (outcome,) = outcomes
        self._told(task, outcome, again=True)
        return self._succeeded(task, outcome) if isinstance(outcome, Succeeded) else self._lost(task, outcome)

    def delegate(self, work: Work, callback: Callable[[Outcome], None]) -> None:
        """Have work of the combiner done on the executor."""
        self._delegated.append(work)
        self._callbacks[work.key] = callback

    def settled(self) -> Iterator[Settled]:
        """Yield every chunk, in input order, once it came to its end."""
        going = True
        while going:
            going = self.turn()
            yield from self.released()

    def released(self) -> Iterator[Settled]:
        """Yield, in input order, the chunks that came to their end and that no other one can come before."""
        return self._order.release(_END if self._drained else self._cursor.frontier)

    def turn(self) -> bool:
        """Submit what has room and take in what is done; false when nothing is left to do."""
        self._admit()
        if not self._running:
            return False
        for _, outcome in self._executor.wait(self._job):
            self._take(outcome)
        return True

    def _admit(self) -> None:
        room = self._slots * (1 + self._executor.prefetch)
        while len(self._running) < room:
            work = self._next()
            if work is None:
                return
            self._running[work.key] = work
            self._executor.submit(self._job, work)

    def _next(self) -> Work | None:
        """Return what to do next: the combiner's work, then what is tried again, then new chunks."""
        if self._delegated:
            return self._delegated.popleft()
        if self._again:
            return self._again.popleft()
        held = 0 if self._early else len(self._order)
        if self._drained or held + len(self._running) >= self._ahead:
            return None
        drawn: Drawn | None = self._cursor.draw(self._sizer.next())
        if drawn is None:
            self._drained = True
            return None
        self._sizer.drawn(drawn.chunk.weight)
        self._order.expect(drawn.key)
        return Task(drawn.key, drawn.chunk, 1, drawn.data)

    def _take(self, outcome: Outcome) -> None:
        work = self._running.pop(outcome.key, None)
        if work is None:
            return
        if outcome.key in self._callbacks:
            self._callbacks.pop(outcome.key)(outcome)
        elif isinstance(work, Inspect):
            self._inspected(work.task, outcome)
        else:
            assert isinstance(work, Task)
            self._ended(work, outcome)

    def _ended(self, task: Task, outcome: Outcome) -> None:
        """Settle a chunk, or see to it that it is tried again in halves."""
        if isinstance(outcome, Succeeded):
            self._sizer.learn(task.chunk.weight, outcome.stats.seconds)
            self._told(task, outcome, again=False)
            self._order.settle(self._succeeded(task, outcome))
        elif outcome.died and outcome.records is None:
            self._deaths[task.key] = outcome
            inspect = Inspect(task)
            self._running[task.key] = inspect
            self._executor.submit(self._job, inspect)
        else:
            self._failed(task, outcome)

    def _succeeded(self, task: Task, outcome: Succeeded) -> Settled:
        failures = tuple(_seen(failure, task, outcome.stats) for failure in outcome.failures)
        payload = outcome.payload
        if self._early is not None:
            self._early(payload)
            payload = None
        return Settled(task, outcome.stats, failures, payload)

    def _inspected(self, task: Task, counted: Outcome) -> None:
        """Go on with a chunk that killed its worker, now that its records are counted."""
        death = self._deaths.pop(task.key)
        if isinstance(counted, Failed) and counted.records:
            found = counted.failure
            failure = found._replace(phase=death.failure.phase, error_type=death.failure.error_type,
                message=death.failure.message, worker=death.failure.worker,
            )  # fmt: skip
            death = death._replace(failure=failure, records=counted.records)
        self._failed(task, death)

    def _failed(self, task: Task, outcome: Failed) -> None:
        """Try a chunk again in halves, or take it down as failed if it cannot be halved."""
        records = outcome.records or 0
        again = records > 1
        self._told(task, outcome, again=again)
        if again:
            halves = [
                Task((*task.key, at), half, task.attempt + 1, data, task.schema)
                for at, (half, data) in enumerate(self._plan.source.halve(task.chunk, task.data, records))
            ]
            self._order.split(task.key, [half.key for half in halves])
            self._again.extend(halves)
            return
        self._order.settle(self._lost(task, outcome))

    def _lost(self, task: Task, outcome: Failed) -> Settled:
        """Return a chunk of which nothing could be kept."""
        failures = tuple(_seen(failure, task, outcome.stats) for failure in _rows(task, outcome.failure))
        return Settled(task, _lost_stats(task, outcome), failures, None, outcome.records is not None)

    def _told(self, task: Task, outcome: Outcome, *, again: bool) -> None:
        ok = isinstance(outcome, Succeeded)
        self._tell(TaskEnded(task.key, task.attempt, task.chunk.weight, outcome.stats, ok, again))

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)


def _seen(failure: Failure, task: Task, stats: Stats) -> Failure:
    """Return a failure with what only the scheduler knows: how often it was tried, and where last."""
    return failure._replace(attempts=task.attempt, worker=failure.worker or stats.worker)


def _rows(task: Task, failure: Failure) -> Iterator[Failure]:
    """Yield a row for each span of a chunk that failed as a whole."""
    if failure.record is not None:
        yield failure
        return
    for span in task.chunk.spans:
        yield failure._replace(source=span.input.uri, start=span.start, stop=span.stop)


def _lost_stats(task: Task, outcome: Failed) -> Stats:
    """Return the statistics of a chunk whose records all failed."""
    if outcome.stats.spans:
        spans = tuple(count._replace(rows_out=0, failed=count.rows_in) for count in outcome.stats.spans)
    else:
        known = outcome.records or 0
        spans = (SpanCount(outcome.failure.source or task.chunk.spans[0].input.uri, known, known, 0, known),)
    return outcome.stats._replace(spans=spans)
