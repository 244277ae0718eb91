"""Main loop of a flow: start ready steps, wait, pass on values.

::

    steps ──ready──> calls ────submit──> executor ──wait──> outcomes
      ^         └──> jobs ──turn──> their schedulers ─┘         │
      │                   (all within one budget)               │
      └── those that took it are ready <── value, or failure <──┘

Values stay packed, or at Ray, and go from step to step as they are.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from batchflow.combiner.error_table import ErrorTable, describe_errors, joined, unseen_errors_of_flow
from batchflow.combiner.failure_notice import FailureNotice
from batchflow.combiner.result import Result
from batchflow.core.garbage_collection import relaxed_gc
from batchflow.core.interrupts import InterruptHandler
from batchflow.core.outcomes import Failed, Failure, Outcome
from batchflow.core.resources import Budget, Resources, amounts
from batchflow.core.retry import NEVER
from batchflow.core.serialization import PickledFunction, pickle_value
from batchflow.core.text import printable
from batchflow.core.work import ReturnedSteps, Skipped, StepValue
from batchflow.errors import FlowError, InterruptedRun, ResourceError, StoppedError, UsageError
from batchflow.events import (
    STEPS,
    Event,
    JobEnded,
    JobStarted,
    Listener,
    Printed,
    StepEnded,
    StepsAdded,
    StepStarted,
    Waited,
)
from batchflow.executors import Executor, chosen
from batchflow.executors.base import UNKNOWN
from batchflow.flows.calls import CallQueue
from batchflow.flows.dependencies import DependencyTracker
from batchflow.flows.jobs import JobSet
from batchflow.flows.result import FlowRun, State
from batchflow.flows.step_state import (
    StepState,
    cache_entry_for,
    errors_of,
    nodes_of_run,
    to_step_run,
    why_not_runnable,
)
from batchflow.flows.steps import FailureTolerantInput, Step, StepSpec, flows_of, need_of
from batchflow.jobs.scheduler import LISTEN_SECONDS
from batchflow.jobs.work_queue import FOLLOW_SECONDS
from batchflow.reporting.progress.listener import Progress
from batchflow.worker import failed
from batchflow.worker.log_records import handle_records

if TYPE_CHECKING:
    from batchflow.flows.flow import Flow

ABORT_SECONDS = 10.0
"""Seconds for running steps to finish after another step failed and aborts the flow."""


class FlowOptions(NamedTuple):
    """Options of a flow run; see `batchflow.Flow.run`."""

    abort: bool
    max_errors: int | float | None
    only: set[int] | None
    keep: bool | set[int] | None
    limits: Resources
    progress: bool | None
    listeners: tuple[Listener, ...]


def run_flow(flow: Flow, how: FlowOptions, executor: Executor | str | None) -> FlowRun:
    """Run a flow; see `batchflow.Flow.run`."""
    needs_ray = any(spec.per_task.needs_ray for spec in flow.steps)
    with chosen(executor, needs_ray=needs_ray) as where, InterruptHandler() as brake, relaxed_gc():
        return FlowScheduler(flow, how, where, brake).run()


class FlowStop:
    """Stop signal for the jobs of a flow, after Ctrl-C or the failure of a step."""

    def __init__(self, brake: InterruptHandler) -> None:
        self._brake = brake
        self.deadline: float | None = None
        """Time at which running steps are cancelled, if the flow is stopping."""

    @property
    def pressed(self) -> bool:
        """Whether no new work may start."""
        return self._brake.pressed or self.deadline is not None

    def stopping(self) -> bool:
        """Return whether no new work may start; raises `InterruptedRun` some time after Ctrl-C."""
        return self._brake.stopping() or self.deadline is not None


class FlowScheduler:
    """Run of a flow."""

    def __init__(self, flow: Flow, how: FlowOptions, executor: Executor, brake: InterruptHandler) -> None:
        self._flow = flow
        self._how = how
        self._executor = executor
        self._brake = brake
        self._stop = FlowStop(brake)
        self._began = time.monotonic()
        self._epoch = time.time()
        self._steps = DependencyTracker(self.is_ready)
        self._budget: Budget
        self._follows = time.monotonic() + FOLLOW_SECONDS
        """Time of the next capacity check."""
        self._ready_jobs: deque[StepState] = deque()
        self._later: list[tuple[float, int, StepState]] = []
        self._calls: CallQueue
        self._jobs: JobSet
        self._failures = 0
        self._over = False
        """Whether more steps failed than allowed."""
        self._progress = Progress(how.progress)

    # --- from the beginning to the end ------------------------------------------------------------

    def run(self) -> FlowRun:
        """Run the flow and return the result of each step."""
        chosen = self._chosen()
        self._open([self._flow.steps[at] for at in sorted(chosen)])
        self._flow.has_run = True
        self._progress(JobStarted(STEPS, len(chosen), self._executor.name, self._budget.slots))
        try:
            self._steps.add(self._flow, chosen, self._kept())
            self._loop()
        except KeyboardInterrupt:
            raise self._interrupted() from None
        finally:
            self._give_up()
            self._progress(JobEnded(not self._stop.pressed))
            self._steps.part()
            del self._calls, self._jobs  # they refer to this
        run = self._result()
        if self._brake.pressed and run.counts.get("cancelled"):
            raise self._interrupted(run)
        self._check_limit(run)
        if self._how.abort:
            _raise_for_failed_step(run)
        return run

    def _chosen(self) -> set[int]:
        """Return the numbers of the steps to run: the selected ones and their ancestors."""
        if self._how.only is None:
            return set(range(len(self._flow.steps)))
        chosen: set[int] = set()
        left = list(self._how.only)
        while left:
            number = left.pop()
            if number not in chosen:
                chosen.add(number)
                left.extend(self._flow.steps[number].parents)
        return chosen

    def _kept(self) -> Collection[int]:
        """Return the steps whose values are kept: requested or selected ones."""
        keep = self._how.keep
        if isinstance(keep, bool):
            keep = set(range(len(self._flow.steps))) if keep else set()
        return (keep or set()) | (self._how.only or set())

    def _open(self, specs: Sequence[StepSpec]) -> None:
        """Start the executor, and refuse steps that can never run."""
        self._executor.start(1, Resources(), workers=1)
        self._budget = self._executor.budget(self._how.limits)
        self._calls = CallQueue(self._executor, self._budget, self._stop, self)
        self._jobs = JobSet(
            self._executor, self._budget, self._stop, self._how.listeners, self, self._progress.of_job
        )
        self._check(specs)

    def _check(self, specs: Iterable[StepSpec]) -> None:
        """Raise `ResourceError` if a step can never run."""
        for spec in {id(spec.per_task): spec for spec in specs}.values():
            try:
                self._budget.check(amounts(spec.per_task))
                self._executor.slots(self._how.limits, spec.per_task)
            except ResourceError as error:
                message = f"step {spec.name!r}: {error}"
                raise ResourceError(message) from error

    def _loop(self) -> None:
        while True:
            self._follow()
            if self._stops():
                self._calls.recall()
            else:
                self._start_ready()
            if self._jobs.turn():
                continue  # what they gave may set others going
            if not self._is_left():
                return
            self._wait()

    def _follow(self) -> None:
        """Adjust the budget to the current size of the cluster."""
        if self._executor.elastic and time.monotonic() > self._follows:
            self._budget.follow(self._executor.budget(self._how.limits))
            for step in (*self._calls.first, *islice(self._ready_jobs, 1)):
                self._executor.slots(self._how.limits, step.spec.per_task)  # raises where none came for too long
            self._follows = time.monotonic() + FOLLOW_SECONDS

    def _is_left(self) -> bool:
        """Whether any work remains."""
        if self._calls or self._jobs:
            return True
        return not self._stops() and bool(self._later or self._ready_jobs or self._calls.are_ready)

    def _stops(self) -> bool:
        """Whether no new work may start; running steps are cancelled after the deadline."""
        if self._stop.deadline is not None and time.monotonic() > self._stop.deadline:
            self._give_up()
        return self._stop.stopping()

    def _give_up(self) -> None:
        """Cancel running steps."""
        self._jobs.give_up()
        self._calls.give_up()
        if self._stop.pressed:
            self._end_rest()

    def _end_rest(self) -> None:
        """Record the state of steps that will not run."""
        for _, _, step in self._later:  # for another try
            assert step.last is not None
            self._failed(step, step.last)
        self._later.clear()
        for step in self._steps:
            if step.state is None:
                self._ended(step, "cancelled", _STOPPED)

    # --- what is begun ----------------------------------------------------------------------------

    def is_ready(self, step: StepState) -> None:
        """Run a step whose dependencies have ended, or skip it if a value is missing."""
        if step.line is not None:
            return  # it was sent ahead
        lacks = why_not_runnable(step)
        if lacks is not None:
            why, step.broken = lacks
            self._ended(step, "skipped", why)
        elif step.spec.fn is None:
            self._ready_jobs.append(step)
        elif not self._is_kept_already(step):
            self._calls.add(step)

    def _is_kept_already(self, step: StepState) -> bool:
        """Whether the value of a step is cached, so that it need not run."""
        if step.place is None:  # it is another one for a step that returned more steps
            step.place = cache_entry_for(step)
        kept = None if step.place is None or step.returned else step.place.find()
        if kept is None:
            return False
        step.digest = kept.digest
        self._gave(step, StepValue((kept,)), "cached")
        return True

    def _start_ready(self) -> None:
        """Start steps that have room, in the order of readiness."""
        while self._later and self._later[0][0] <= time.monotonic():
            self._calls.add(heapq.heappop(self._later)[2])
        while self._ready_jobs and self._budget.fits(dict(self._ready_jobs[0].takes)):
            step = self._ready_jobs.popleft()
            self.call_begins(step)
            self._jobs.start(step)
        self._calls.turn()

    def call_begins(self, step: StepState) -> None:
        """Record the start of an attempt."""
        step.attempts += 1
        step.begun = self._now()
        if step.start is None:
            step.start = step.begun
        self._tell(StepStarted, step.spec.name, step.attempts)

    # --- what came of it --------------------------------------------------------------------------

    def _wait(self) -> None:
        """Wait for outcomes and process them."""
        if not self._calls and not self._jobs.is_busy:
            time.sleep(self._patience())
            return
        jobs = self._jobs.programs
        outcomes = self._executor.wait({*jobs, *self._calls.programs}, self._patience())
        if not outcomes:
            self._progress(Waited())
        for program, outcome in outcomes:
            if program in jobs:
                self._jobs.hear(jobs[program], outcome)
            else:
                self._calls.hear(outcome)

    def _patience(self) -> float:
        """Return the timeout in seconds for the next wait."""
        times = [LISTEN_SECONDS, *self._jobs.patience, *self._calls.patience]
        if self._later and not self._stop.pressed:
            times.append(self._later[0][0] - time.monotonic())
        return max(0.0, min(times))

    def call_ended(self, step: StepState, outcome: Outcome) -> None:
        """Process the outcome of a call."""
        if step.attempts == 1 and outcome.stats.started:  # by the worker's clock, which may be another machine's
            step.start = min(max(step.begun, outcome.stats.started - self._epoch), self._now())
        if outcome.printed:
            tried = f", try {step.attempts}" if step.attempts > 1 else ""
            lines = handle_records(outcome.printed)
            if lines:
                self._tell(Printed, f"{step.spec.name}{tried}", lines)
        step.worker = outcome.stats.worker or getattr(outcome, "failure", _NO_FAILURE).worker
        if isinstance(outcome, Failed):
            self._call_failed(step, outcome)
        elif isinstance(outcome.payload, Skipped):
            self.skipped(step)
        elif isinstance(outcome.payload, ReturnedSteps):
            self._returned(step, outcome.payload)
        else:
            step.digest = outcome.digest
            self._gave(step, StepValue((outcome.payload,)), "succeeded")

    def _call_failed(self, step: StepState, outcome: Failed) -> None:
        """Retry a step, if it is retryable."""
        retry = step.spec.retry
        if not outcome.helped or step.attempts >= retry.tries(asked=outcome.after is not None) or self._stops():
            self._failed(step, outcome.failure)
            return
        step.last = outcome.failure
        due = time.monotonic() + max(outcome.after or 0.0, retry.delay(step.attempts))
        heapq.heappush(self._later, (due, step.number, step))

    def _returned(self, step: StepState, grown: ReturnedSteps) -> None:
        """Run the steps that a step returned."""
        try:
            self._grow(step, grown.value.open())
        except (Exception, SystemExit) as error:
            self._failed(step, failed(UNKNOWN, "convert", error).failure)

    def _grow(self, step: StepState, value: Any) -> None:
        """Add the steps that a step returned; their values replace the handles in its value."""
        handles: list[Step | FailureTolerantInput] = []

        def place(handle: Any) -> int | None:
            if not isinstance(handle, Step | FailureTolerantInput):
                return None
            handles.append(handle)
            return len(handles) - 1

        arguments = pickle_value(((value,), {}), place)
        flows = {flow.token: flow for handle in handles for flow in flows_of(handle)}
        for flow in flows.values():
            if self._steps.has(flow):
                message = f"it returned a step of {flow.name!r}, which runs already: write a new Flow inside of it"
                raise UsageError(message)
            self._check(flow.steps)
        prefix = f"{step.spec.name}/"
        self._tell(StepsAdded, sum(len(flow.steps) for flow in flows.values()))
        added = {
            token: self._steps.add(flow, range(len(flow.steps)), prefix=prefix) for token, flow in flows.items()
        }
        needs = [
            (need, [added[one.flow.token][one.number] for one in steps]) for need, steps in map(need_of, handles)
        ]
        step.spec = replace(step.spec, fn=_SAME, arguments=arguments, when=None, retry=NEVER)
        step.returned = True
        step.attempts -= 1  # what is left to do is no try
        self._steps.release(step)
        self._steps.expect(step, needs)

    def _gave(self, step: StepState, given: StepValue, state: State) -> None:
        """Record the value of a step."""
        step.given = given
        step.succeeded += 1 if step.spec.fn is not None else 0
        self._ended(step, state)

    def skipped(self, step: StepState) -> None:
        """Record a step whose condition is false."""
        default = step.spec.default
        if default is not None:
            step.given, step.digest = StepValue((default,)), default.digest
        self._ended(step, "skipped", "its when= did not hold")

    def _failed(self, step: StepState, failure: Failure) -> None:
        """Record a failed step, and abort the flow if required."""
        step.failed += 1 if step.spec.fn is not None else 0
        errors = ErrorTable()
        source, worker = failure.source or step.spec.name, failure.worker or step.worker
        errors.add([failure._replace(source=source, attempts=step.attempts, worker=worker)])
        step.errors.append(errors.table())
        self._broken(step, f"{failure.error_type}: {failure.message}")

    def _broken(self, step: StepState, why: str) -> None:
        """Record a step without a value because of a failure, and abort the flow unless it continues."""
        step.broken = True
        self._ended(step, "failed", why)
        if self._how.abort:
            self._end_early()

    def job_ended(self, step: StepState, result: Result, payloads: Sequence[Any], state: State) -> None:
        """Record the end of a job step."""
        step.report = result.report
        step.succeeded, step.failed = result.report.succeeded, result.report.failed
        step.errors.append(result.errors)
        if step.failed and not step.succeeded:
            self._broken(step, _all_failed(result))
            return
        rows = result.path is None
        self._gave(step, StepValue(tuple(payloads) if rows else (pickle_value(str(result.path)),), rows), state)

    def job_failed(self, step: StepState, error: BaseException) -> None:
        """Record the failure of a job step."""
        if isinstance(error, StoppedError):
            step.errors.append(error.errors)
            step.failed = error.errors.num_rows
        self._failed(step, failed(UNKNOWN, "call", error).failure)

    def job_stopped(self, step: StepState) -> None:
        """Record the cancellation of a job step."""
        self._ended(step, "cancelled", _STOPPED)

    def _ended(self, step: StepState, state: State, why: str = "") -> None:
        """Record the end of a step, and update its dependents."""
        step.state, step.why = state, why
        if step.start is not None:
            step.end = self._now()
        self._steps.release(step)
        self._tell(StepEnded, step.spec.name, state, step.attempts, why)
        if step.errors:
            self._failures += sum(errors.num_rows for errors in step.errors)
            self._check_failures()
        self._steps.ended(step)

    def _check_failures(self) -> None:
        limit = self._how.max_errors
        if isinstance(limit, int) and self._failures > limit:
            self._over = True
            self._end_early()

    def _end_early(self) -> None:
        """Start no more steps, and set a deadline for running ones."""
        if self._stop.deadline is None:
            self._stop.deadline = time.monotonic() + ABORT_SECONDS

    # --- what is told -----------------------------------------------------------------------------

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _tell(self, kind: Callable[..., Event], *what: Any) -> None:
        if not (self._how.listeners or self._progress.counts or kind is Printed):
            return  # nobody would hear it
        event = kind(*what)
        self._progress(event)
        for listener in self._how.listeners:
            listener(event)

    def _interrupted(self, run: FlowRun | None = None) -> InterruptedRun:
        done = sum(step.state in ("succeeded", "cached") for step in self._steps)
        keeps = any(_keeps(step.spec) for step in self._steps)
        kept = " what they keep on disk is not done again;" if keeps else ""
        message = f"interrupted after {done:,} of {len(self._steps):,} steps:{kept} run the same again to go on"
        return InterruptedRun(message, run)

    def _result(self) -> FlowRun:
        if not self._executor.warm:  # with it goes what it holds
            for step in self._steps:
                if step.given is not None:
                    fetched = tuple(map(self._executor.fetch, step.given.payloads))
                    step.given = step.given._replace(payloads=fetched)
        nodes = partial(nodes_of_run, self._steps)
        notice = FailureNotice(self._unseen if self._warns() else None)
        runs = [to_step_run(step, self._executor.fetch, notice.warn) for step in self._steps]
        errors = list(errors_of(self._steps))
        where = self._budget.slots, self._executor.name, self._epoch, notice
        return FlowRun(self._flow, runs, nodes, errors, self._now(), *where)

    def _warns(self) -> bool:
        """Whether to warn of failed records: no ``max_errors=``, and no step that allows failures."""
        return self._how.max_errors is None and bool(self._unexpected())

    def _unexpected(self) -> list[StepState]:
        needs = [need for step in self._steps for need in step.needs]
        handled = {giver.number for need, givers in needs if need.tolerant for giver in givers}
        return [
            step
            for step in self._steps
            if step.failed and not step.broken and _is_unlimited(step.spec) and step.number not in handled
        ]

    def _unseen(self) -> str:
        return unseen_errors_of_flow(joined(list(errors_of(self._unexpected()))))

    def _check_limit(self, run: FlowRun) -> None:
        """Stop if more steps failed than allowed."""
        limit = self._how.max_errors
        if isinstance(limit, float):
            total = sum(step.succeeded + step.failed for step in self._steps)
            self._over = run.errors.num_rows > limit * total
        if self._over:
            message = f"stopped: more than max_errors={limit} failed; {describe_errors(run.errors)}"
            raise StoppedError(message, run.errors, run)


def _raise_for_failed_step(run: FlowRun) -> None:
    """Raise `FlowError` with the first step that failed."""
    step = next((step for step in run.steps if step.state == "failed"), None)
    if step is not None:
        message = f"step {step.name!r} failed: {printable(step.why)}\n{run}"
        raise FlowError(message, run)


def _all_failed(result: Result) -> str:
    """Return the failure reason of a job step of which no record succeeded."""
    return f"no record succeeded: {describe_errors(result.errors)}"


def _same(value: Any) -> Any:
    return value


_SAME = PickledFunction(_same)
_STOPPED = "the flow was stopped"
_NO_FAILURE = Failure("", None, None, None, None, "call", "", "")


def _is_unlimited(spec: StepSpec) -> bool:
    """Whether a step is a job without a limit of failed records."""
    return spec.job is not None and spec.job.get("max_errors") is None


def _keeps(spec: StepSpec) -> bool:
    """Whether a step stores its value on disk."""
    return spec.keep is not None or (spec.job is not None and spec.job.get("into") is not None)
