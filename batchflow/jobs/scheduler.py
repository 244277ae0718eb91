"""Main loop of a job: admit, submit, wait, retry, split, settle, report.

::

    source ──cursor──> chunks ──admit──> executor ──wait──> outcomes
               ^ sizer                      ^                   │
               └──── how long it took ──────┼───────────────────┤
                                            │   a chunk that failed whole comes back:
                                            ├── later ──────────┤   whole, where another try may help
                                            ├── halves ─────────┤   in halves, until the guilty record is alone
                                            ├── alone ──────────┤   by itself, where it may be innocent
    listeners <── events ── settled, in input order <───────────┘

Only here are attempts of a chunk counted, and only here is decided what is tried again. The driver
holds chunks in flight and references to results, never rows.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from batchflow.combiner.ordering import RecordNumbering, ReorderBuffer
from batchflow.core.chunk_sizing import ALONE_LEAST, FIRST_BYTES, FIRST_RECORDS, ChunkSizer
from batchflow.core.chunks import Chunk, Key
from batchflow.core.coverage import Coverage
from batchflow.core.outcomes import Failed, Outcome, SettledChunk, Stats, Succeeded
from batchflow.core.resources import Budget
from batchflow.core.text import printable
from batchflow.core.work import AssemblePart, CountRecords, Task, WorkItem
from batchflow.errors import GO_ON, FunctionError, OutputError
from batchflow.events import (
    ChunkSettled,
    CombineEnded,
    Event,
    JobEnded,
    JobStarted,
    Listener,
    Printed,
    SlotsChanged,
    TaskEnded,
    TaskStarted,
    Waited,
)
from batchflow.executors.base import Executor
from batchflow.io.sources.base import ChunkCursor, KeyedChunk
from batchflow.jobs import fault_policy as losses
from batchflow.jobs.fault_policy import FaultPolicy
from batchflow.jobs.isolation import ChunkPart, is_guilty, parts_around, records_name
from batchflow.jobs.setup_failures import SetupFailures
from batchflow.jobs.work_queue import PendingQueue, SubmittedTasks
from batchflow.plan import Plan
from batchflow.reporting.task_output import place_of
from batchflow.worker import Program, placed
from batchflow.worker.log_records import handle_records

_END: Key = (sys.maxsize,)
AHEAD = 4
"""Maximum finished chunks per slot that a streaming consumer has not taken yet."""
HEAVY_SHARE = 8
"""Denominator of a slot's share of the input; unsplittable files above that fraction start first."""
LISTEN_SECONDS = 0.2
"""Maximum seconds per wait, after which the loop checks for stop requests and listeners."""


class Scheduler:
    """Runs the chunks of a plan on an executor and returns them settled.

    Parameters
    ----------
    plan
        What to run.
    executor
        Where to run it; started and given back by the caller.
    program
        What the workers need of the job.
    deliver
        Takes each chunk that came to its end, in input order.
    listeners
        Hear every event.
    bounded
        Do not run further ahead of the consumer than `AHEAD` chunks for each slot.
    early
        Takes each payload as it comes, in the order of completion; what is delivered then has none.
    note
        Hears of each chunk that came to its end, in the order of completion.
    stopping
        Asked now and then; once true, nothing more is begun.
    waiting
        Asked for the bytes that wait to be combined, beside those that wait for their turn.
    budget
        What may be in use at the same time by all jobs that share the executor.
    """

    _splitting = _combining = 0.0
    """Seconds spent on splitting the input, and seconds spent on combining results."""
    _compares = False
    """Whether the speed of a single worker is still to be measured."""

    def __init__(
        self,
        plan: Plan,
        executor: Executor,
        program: Program,
        deliver: Callable[[SettledChunk], object],
        listeners: Iterable[Listener] = (),
        *,
        bounded: bool = False,
        early: Callable[[Any], None] | None = None,
        note: Callable[[SettledChunk], None] | None = None,
        stopping: Callable[[], bool] | None = None,
        waiting: Callable[[], int] = int,
        budget: Budget | None = None,
    ) -> None:
        self._plan = plan
        self._executor = executor
        self._program = program
        self._deliver = deliver
        self._listeners = list(listeners)
        self._early = early
        self._note = note
        self._stopping = stopping
        self._waiting = waiting
        fixed = plan.chunk_weight is not None
        ahead = fixed or plan.pace.calls == 1  # where calls wait chunks are long, and few
        self._running = SubmittedTasks(
            executor,
            plan.spec.limits,
            plan.spec.per_task,
            budget,
            fixed=fixed,
            ahead=ahead,
            overlap=executor.tasks_ahead(program),
        )
        self._ahead = AHEAD * self._slots if bounded else sys.maxsize
        self._heavy = None if bounded or not plan.total else plan.total // (self._slots * HEAVY_SHARE)
        self._blame: FaultPolicy
        self._cursor: ChunkCursor
        self._sizer: ChunkSizer
        self._drained = False
        self._backlog = PendingQueue()
        self._setup = SetupFailures()
        self._alone: Key | None = None
        self._callbacks: dict[Key, Callable[[Outcome], None]] = {}
        self._inspected: dict[Key, Failed] = {}
        self._order = ReorderBuffer()
        self._tracebacks = losses.Tracebacks()
        self._numbering = RecordNumbering()
        self.job: int = 0
        """Number of the program at the executor."""

    def open(
        self, resume: Callable[[], Sequence[SettledChunk]] = tuple, cursor: ChunkCursor | None = None
    ) -> None:
        """Start workers and ship the program.

        Parameters
        ----------
        resume
            Called when all that can be refused was; gives the chunks that earlier runs did, which are
            not drawn again and come out in their places.
        cursor
            Gives the chunks, in the place of the plan's own source.
        """
        self._executor.start(self._slots, self._plan.spec.per_task)
        self.job = self._executor.load(self._program)
        done = resume()
        self._blame = FaultPolicy(proven=bool(done) or cursor is not None)
        source = self._plan.source
        history = self._plan.history
        covered = Coverage((settled.chunk for settled in done), history.complete if history else ())
        self._cursor = cursor or source.cursor(self._plan.inputs, self._heavy, covered)
        for settled in done:
            self._order.settle(settled)
        left = self._plan.total if cursor is None and not done else self._cursor.total
        first = FIRST_RECORDS if source.in_memory else FIRST_BYTES
        timeout = self._program.timeout
        self._sizer = ChunkSizer(left, self._slots, first, self._plan.chunk_weight, self._plan.pace, timeout)
        own = self._running.has_machine and self._ahead == sys.maxsize and self._slots > 1
        self._compares = own and not self._plan.uncuttable  # the next chunk may be such a file, however large
        unit = "records" if source.in_memory or cursor is not None else "bytes"
        before = sum(settled.chunk.weight for settled in done)
        total = None if left is None else left + before
        executor = self._executor
        types = dict(source.summary()).get("types", "")
        items = self._progress_items(unit, done)
        self._tell(JobStarted(unit, total, executor.name, self._slots, before, executor.logs, types, *items))

    def _progress_items(self, unit: str, done: Sequence[SettledChunk]) -> tuple[str, int | None, int]:
        """Return the unit of progress, the total number of items, and the number that earlier runs finished."""
        spec = self._plan.spec
        if unit == "records":
            return "", None, 0
        if self._plan.source.kind == "files":
            return "files", len(self._plan.inputs), sum(len(settled.chunk.spans) for settled in done)
        if spec.concurrency is not None or spec.rate is not None:
            return "records", None, sum(settled.stats.counts[0] for settled in done)
        return "", None, 0

    def close(self, *, complete: bool) -> None:
        """Cancel running tasks and unload the program."""
        self._running.give_up()
        self._executor.unload(self.job)
        self._tell(JobEnded(complete, self._splitting, self._combining))

    def announce(self, settled: SettledChunk) -> SettledChunk:
        """Report a final chunk to the listeners; return it with its records numbered."""
        settled = self._numbering.number(settled)
        self._tell(ChunkSettled(settled.key, settled.chunk, settled.stats, settled.failures, settled.before))
        return settled

    def again(self, task: Task) -> None:
        """Reprocess a settled chunk; it is delivered again in its place, or in halves."""
        self._order.expect(task.key)
        self._backlog.again([task])

    def delegate(self, work: WorkItem, callback: Callable[[Outcome], None]) -> None:
        """Run work of the combiner on the executor."""
        self._backlog.delegate(work)
        self._callbacks[work.key] = callback

    @property
    def _slots(self) -> int:
        """Number of tasks that run concurrently."""
        return self._running.slots

    def run(self) -> None:
        """Run the loop until all work is done."""
        for _ in self.turns():
            self.wait()

    def turns(self) -> Iterator[None]:
        """Start admissible work and deliver finished chunks; yield to wait for outcomes.

        Many schedulers can share one executor this way.
        """
        while True:
            self._follow()
            if not self._stops():
                self._admit()
            for settled in self._order.release(_END if self._drained else self._cursor.frontier):
                began = time.perf_counter()
                self._deliver(settled)
                self._combining += time.perf_counter() - began
            self._running.flush(self.job)
            if not self._is_left():
                return
            yield

    def _follow(self) -> None:
        """Adjust the number of concurrent tasks to the current size of the cluster."""
        if self._running.follow(self.job):
            self._ahead = self._ahead if self._ahead == sys.maxsize else AHEAD * self._slots
            self._sizer.resize(self._slots)
            self._tell(SlotsChanged(self._slots))

    def _is_left(self) -> bool:
        """Whether any work remains."""
        left = not self._drained or bool(self._backlog) or bool(self._setup.held)
        return bool(self._running) or (left and not self._stops())

    def wait(self) -> None:
        """Wait for outcomes and process them, or sleep until the next retry if nothing is running."""
        if self._running:
            outcomes = self._executor.wait((self.job,), self.patience)
            for _, outcome in outcomes:
                self.take(outcome)
            if not outcomes:
                self._tell(Waited())
        elif self._backlog.due is not None:
            time.sleep(self.patience)

    @property
    def is_busy(self) -> bool:
        """Whether any work is running."""
        return len(self._running) > 0

    # --- what is begun ----------------------------------------------------------------------------

    @property
    def patience(self) -> float:
        """Timeout in seconds for the next wait."""
        due = self._backlog.due
        held = self._running and self._backlog.suspects
        if due is None or held or not self._has_slot() or self._stops():
            return LISTEN_SECONDS  # only an outcome lets anything begin
        return min(due, LISTEN_SECONDS)

    def _stops(self) -> bool:
        """Whether no new work may start."""
        return self._stopping is not None and self._stopping()

    def _has_slot(self) -> bool:
        """Whether another piece of work may start now."""
        return self._alone is None and self._running.has_room

    def _admit(self) -> None:
        if self._setup.held:
            tasks = self._setup.release(running=bool(self._running))
            if tasks is None:
                return
            self._backlog.again(tasks)
        while self._has_slot():
            if self._backlog.suspects:
                suspect = None if self._running else self._backlog.next_suspect()
                if suspect is not None:
                    self._alone = suspect.key
                    self._begin(suspect)
                return
            weight = self._sizer.alone() if self._compares and not self._drained else None
            if weight is not None and self._running:
                return  # it waits for those that run
            work = self._next() if weight is None else self._draw(weight, alone=True)
            if work is None:
                return
            self._begin(work)

    def _begin(self, work: WorkItem) -> None:
        self._running.begin(self.job, work)
        if isinstance(work, Task):
            self._tell(TaskStarted(work.key, work.attempt, work.chunk.weight, _isolating(work)))

    def _next(self) -> WorkItem | None:
        """Return the next work: pending work first, then new chunks."""
        work = self._backlog.next()
        if work is not None or self._drained or not self._has_room():
            return work
        return self._draw(self._sizer.next())

    def _draw(self, weight: int, *, alone: bool = False) -> Task | None:
        """Draw the next chunk of the input; ``alone`` measures the speed of one worker."""
        began = time.perf_counter()
        drawn: KeyedChunk | None = self._cursor.draw(weight)
        self._splitting += time.perf_counter() - began
        if drawn is None:
            self._drained = True
            return None
        self._sizer.drawn(drawn.chunk.weight)
        self._order.expect(drawn.key)
        if alone:
            self._alone, self._compares = drawn.key, False
        return Task(drawn.key, drawn.chunk, 1, drawn.data, alone=alone)

    def _has_room(self) -> bool:
        """Whether memory for uncombined results allows another task. With nothing running one must be admitted."""
        held = 0 if self._early else len(self._order)
        if held + len(self._running) + self._backlog.waiting >= self._ahead:
            return False
        cap = self._plan.spec.limits.nbytes
        return cap is None or not self._running or self._order.nbytes + self._waiting() < cap

    # --- what came of it --------------------------------------------------------------------------

    def take(self, outcome: Outcome) -> None:
        """Process the outcome of one piece of work of this job.

        Raises
        ------
        FunctionError
            If a worker cannot load the program, which is no fault of any record.
        """
        work = self._running.end(outcome.key)
        if work is None:
            return
        self._print(work, outcome.printed)
        _check_loaded(self._program.fn, outcome)
        if isinstance(work, Task) and isinstance(outcome, Failed):
            outcome = self._placed(work, outcome)
        if self._blame.is_unlucky(work, outcome):
            self._begin(work)
        elif outcome.key in self._callbacks:
            self._combined(work, outcome)
        elif isinstance(work, CountRecords):
            self._counted(work.task, outcome)
        else:
            assert isinstance(work, Task)
            self._ended(work, outcome)
        if outcome.key == self._alone and outcome.key not in self._running:
            self._alone = None

    def _print(self, work: WorkItem, printed: tuple[str, ...]) -> None:
        lines = handle_records(printed)
        if lines:
            self._tell(Printed(place_of(work), lines))

    def _combined(self, work: WorkItem, outcome: Outcome) -> None:
        """Pass an outcome to the combiner."""
        if isinstance(outcome, Succeeded):
            self._tell(CombineEnded(isinstance(work, AssemblePart), outcome.stats))
        self._callbacks.pop(outcome.key)(outcome)

    def _ended(self, task: Task, outcome: Outcome) -> None:
        """Settle a chunk, or schedule its retry."""
        if self._blame.is_stranded(task, outcome):
            self._told(task, outcome, again=True)
            again = task._replace(attempt=task.attempt + 1)
            if task.alone:
                self._backlog.suspect(again)
            else:
                self._backlog.again([again])
            return
        if isinstance(outcome, Failed) and outcome.setup:
            self._unprepared(task, outcome)
            return
        self._blame.hear(outcome)
        self._setup.works |= isinstance(outcome, Succeeded) or not outcome.died
        if isinstance(outcome, Succeeded):
            self._learn(task, outcome)
            self._told(task, outcome, again=False)
            self._settle(self._succeeded(task, outcome))
            return
        parts = self._parts(task, outcome) if task.blind else ()
        if outcome.died and outcome.records is None and not parts:
            self._inspected[task.key] = outcome
            self._begin(CountRecords(task))
        else:
            self._failed(task, outcome, parts)

    def _learn(self, task: Task, outcome: Succeeded) -> None:
        """Record the duration of a chunk."""
        self._sizer.learn(task.chunk.weight, outcome.stats.lanes or outcome.stats.seconds)
        self._running.learn(outcome.stats.seconds)
        if task.alone and task.attempt == 1 and outcome.stats.seconds < ALONE_LEAST:
            self._compares = True  # it was over too soon to tell: what came first had been slower

    def _unprepared(self, task: Task, outcome: Failed) -> None:
        """Retry a chunk whose worker's ``setup=`` raised, or hold it until ``setup=`` has worked elsewhere."""
        self._told(task, outcome, again=True)
        delay = self._setup.delay(task, outcome, self._plan.spec.retry)
        if delay is not None:
            self._backlog.later(task, delay)

    def _placed(self, task: Task, outcome: Failed) -> Failed:
        """Return an outcome with its position, for records sent with a task.

        Records that the worker could not deserialize count as well: another worker would be lost too.
        """
        records = self._plan.source.count(task.data) if outcome.records is None else None
        if records is None or not (outcome.died or outcome.failure.phase == "read"):
            return outcome
        if records == 1:
            outcome = placed(outcome, next(self._plan.source.read(task.chunk, task.data)), 0)
        return outcome._replace(records=records)

    def _settle(self, settled: SettledChunk) -> None:
        if self._note is not None:
            self._note(settled)
        self._order.settle(settled)

    def _succeeded(self, task: Task, outcome: Succeeded) -> SettledChunk:
        failures = self._tracebacks.add(outcome.failures, task, outcome.stats)
        if self._early is None:
            return SettledChunk(
                task, outcome.stats, failures, outcome.payload, schemas=outcome.schemas, tallies=outcome.tallies
            )
        self._early(outcome.payload)
        return SettledChunk(task, outcome.stats._replace(held=0), failures)

    def _counted(self, task: Task, counted: Outcome) -> None:
        """Handle a lost chunk after its records were counted."""
        ended = self._inspected.pop(task.key)
        if isinstance(counted, Failed) and counted.records:
            failure = ended.failure._replace(
                source=counted.failure.source,
                start=counted.failure.start,
                stop=counted.failure.stop,
                record=counted.failure.record,
                payload=counted.failure.payload,
            )
            ended = ended._replace(failure=failure, records=counted.records)
        counts = [count.positions for count in counted.stats.spans]
        self._failed(task, ended, self._parts(task, ended), counts)

    def _failed(self, task: Task, outcome: Failed, parts: Sequence[Chunk], counts: Sequence[int] = ()) -> None:
        """Retry a chunk as a whole, in halves or alone; or settle it as failed."""
        if len(parts) == 1:
            outcome = losses.as_single_record(task, outcome)
        records = outcome.records or 0
        whole = task._replace(attempt=task.attempt + 1)
        again = True
        if self._helps(task, outcome):
            whole = whole._replace(alone=False)
            self._backlog.later(whole, max(outcome.after or 0.0, self._plan.spec.retry.delay(task.attempt)))
        elif records > 1 and (outcome.died or self._plan.spec.isolates):
            self._narrow(task, outcome, counts or [records])
        elif len(parts) > 1:
            self._blame.cut(task)
            self._backlog.again(self._split(task._replace(blind=True), [(part, task.data) for part in parts]))
        elif records == 1 and (pause := self._blame.respite(task, outcome)) is not None:
            self._backlog.suspect(whole._replace(alone=True), pause)
        elif records == 1 and outcome.died and outcome.failure.phase == "worker" and self._blame.tries(task) == 1:
            self._backlog.again([whole])
        else:
            again = False
        self._told(task, outcome, again=again)
        if not again:
            self._settle(self._lost(task, outcome))

    def _helps(self, task: Task, outcome: Failed) -> bool:
        """Whether the same chunk is retried; a lost chunk only if it is a single record."""
        tries = self._plan.spec.retry.tries(asked=outcome.after is not None)
        if not outcome.helped or self._blame.tries(task) >= tries:
            return False
        return not outcome.died or outcome.records == 1

    def _narrow(self, task: Task, outcome: Failed, counts: Sequence[int]) -> None:
        """Retry a chunk in parts: around the record that it broke off at, or in halves.

        Where the position is but a stretch of records, it is tried again with each record noted.
        """
        parts = parts_around(self._plan.source, task, outcome, counts)
        if len(parts) == 1 and parts[0].suspect and task.attempt == 1:
            self._backlog.again([task._replace(attempt=2, isolates=True)])
            return
        if len(parts) < 2:
            halves = self._plan.source.halve(task.chunk, task.data, sum(counts))
            parts = [ChunkPart(half, data) for half, data in halves]
        tasks = self._split(task, [(part.chunk, part.data) for part in parts])
        for part, one in zip(parts, tasks, strict=True):
            if part.suspect and is_guilty(outcome):
                self._accuse(one._replace(attempt=task.attempt), outcome)
            elif part.suspect and outcome.suspect and outcome.position and outcome.position.records == 1:
                self._backlog.suspect(one._replace(alone=True))
            else:
                self._backlog.again([one])

    def _accuse(self, task: Task, outcome: Failed) -> None:
        """Settle the single record of a task as failed, because it broke off a larger task."""
        outcome = outcome._replace(records=None, position=None, stats=Stats(outcome.stats.worker))
        alone = self._placed(task, outcome)
        if alone.records is not None:
            self._failed(task, alone, ())
            return
        self._inspected[task.key] = outcome
        self._begin(CountRecords(task))

    def _parts(self, task: Task, outcome: Failed) -> Sequence[Chunk]:
        """Split a chunk whose records cannot be counted, since one of them crashes every reader.

        There is one part if that record is alone, and none if nobody can tell.
        """
        if not outcome.died or outcome.records is not None or task.chunk.of is not None:
            return ()
        if outcome.failure.phase == "timeout" and len(task.chunk.spans) == 1:
            return ()  # a file that keeps its readers waiting does so wherever it is cut
        if self._blame.is_uncountable(task):
            return ()
        return self._plan.source.parts(task.chunk)

    def _split(self, task: Task, chunks: Iterable[tuple[Chunk, Any]]) -> list[Task]:
        """Return tasks for the parts of a chunk, which are delivered in its place."""
        parts = [
            Task((*task.key, at), part, task.attempt + 1, data, task.schema, isolates=True, blind=task.blind)
            for at, (part, data) in enumerate(chunks)
        ]
        self._order.split(task.key, [part.key for part in parts])
        return parts

    def _lost(self, task: Task, outcome: Failed) -> SettledChunk:
        """Return a chunk without results; the run stops if the chunk is not at fault."""
        if outcome.unwritten and self._plan.destination is not None:
            why = printable(f"{outcome.failure.error_type}: {outcome.failure.message}")
            message = f"cannot write to {self._plan.destination.path}: {why}; {GO_ON}"
            raise OutputError(message)
        rows = tuple(losses.failures_per_span(task, outcome.failure))
        failures = self._tracebacks.add(rows, task, outcome.stats)
        return SettledChunk(
            task, losses.stats_of_failed_chunk(task, outcome), failures, None, outcome.records is not None
        )

    def _told(self, task: Task, outcome: Outcome, *, again: bool) -> None:
        failure, died = (outcome.failure, outcome.died) if isinstance(outcome, Failed) else (None, False)
        again |= task.schema is not None  # told when it was done the first time
        told = (outcome.stats, failure is None, again, task.chunk, failure, died, task.alone, _isolating(task))
        self._tell(TaskEnded(task.key, task.attempt, task.chunk.weight, *told))

    def _tell(self, event: Event) -> None:
        for listener in self._listeners:
            listener(event)


def _isolating(task: Task) -> str:
    """Return the name of the records that a task isolates from a lost or failed chunk."""
    return records_name(task.chunk) if task.isolates else ""


def _check_loaded(fn: Callable[..., Any], outcome: Outcome) -> None:
    """Raise if a worker cannot load the program of a job; the worker's traceback is a note."""
    if not isinstance(outcome, Failed) or not outcome.unloadable:
        return
    failure = outcome.failure
    name = getattr(fn, "__qualname__", repr(fn))
    message = f"a worker cannot load {name}: {failure.error_type}: {failure.message}; {_cure(failure.error_type)}"
    error = FunctionError(message)
    if failure.traceback:
        error.add_note(failure.traceback)
    raise error


def _cure(error_type: str) -> str:
    """Return the fix for a program that a worker cannot load."""
    if error_type == "UsageError":
        return "its module starts a job while it is imported"
    if error_type in ("ImportError", "ModuleNotFoundError", "AttributeError"):
        return "what it imports must be in a file that a new Python process finds in sys.path"
    return "make what it refers to inside the function, or in setup="
