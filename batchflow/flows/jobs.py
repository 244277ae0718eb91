"""Job steps of a flow: concurrent jobs with one scheduler each, on one executor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Protocol

from batchflow.combiner.result import Result
from batchflow.core.outcomes import Outcome
from batchflow.core.resources import Budget
from batchflow.core.work import Partial
from batchflow.errors import InterruptedRun
from batchflow.events import Listener
from batchflow.executors import Executor
from batchflow.flows.result import State
from batchflow.flows.step_state import RunningJob, StepState, build_call, job_digest
from batchflow.io.readers import records
from batchflow.io.sources import Source
from batchflow.jobs.planner import make_plan
from batchflow.jobs.run import JobRun, StopSignal
from batchflow.plan import JobSpec
from batchflow.worker import finished_value, found


class JobObserver(Protocol):
    """Receiver of the results of job steps."""

    def job_ended(self, step: StepState, result: Result, payloads: Sequence[Any], state: State) -> None:
        """Handle the end of a job step, with its rows in memory."""

    def job_failed(self, step: StepState, error: BaseException) -> None:
        """Handle the failure of a job step."""

    def job_stopped(self, step: StepState) -> None:
        """Handle the cancellation of a job step."""

    def skipped(self, step: StepState) -> None:
        """Handle a job step whose condition is false."""


class JobSet:
    """Running jobs of a flow.

    Parameters
    ----------
    executor, budget, stop, listeners
        As for `Run`.
    ends
        Hears what became of the steps.
    watch
        Returns a listener of its own for a step, by its name.
    """

    def __init__(
        self,
        executor: Executor,
        budget: Budget,
        stop: StopSignal,
        listeners: Sequence[Listener],
        ends: JobObserver,
        watch: Callable[[str], Listener],
    ) -> None:
        self._executor = executor
        self._budget = budget
        self._stop = stop
        self._listeners = listeners
        self._ends = ends
        self._watch = watch
        self._under_way: dict[int, tuple[StepState, RunningJob]] = {}
        self._turns = 0

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def programs(self) -> dict[int, int]:
        """Steps by the program number at the executor."""
        return {job.run.scheduler.job: number for number, (_, job) in self._under_way.items()}

    @property
    def is_busy(self) -> bool:
        """Whether any job is waiting for an outcome."""
        return any(job.run.scheduler.is_busy for _, job in self._under_way.values())

    @property
    def patience(self) -> list[float]:
        """Seconds until each running job needs attention."""
        return [job.run.scheduler.patience for _, job in self._under_way.values()]

    def start(self, step: StepState) -> None:
        """Start a step, unless its condition is false."""
        try:
            job = self._job(step)
        except (Exception, SystemExit) as error:
            self._ends.job_failed(step, error)
            return
        if job is None:
            self._ends.skipped(step)
        elif isinstance(job, Result):
            self._ends.job_ended(step, job, (), "cached")
        else:
            self._under_way[step.number] = step, job
            self._advance(step, job, partial(next, job.work))  # so that it takes what it needs

    def _job(self, step: StepState) -> RunningJob | Result | None:
        """Return the job of a step, its cached result, or ``None`` if its condition is false."""
        spec = step.spec
        find = cache(partial(self._found, step))
        (value,), args = spec.arguments.open(find)
        wanted = True
        if spec.when is not None:
            wanted = find(spec.when) if isinstance(spec.when, int) else finished_value(spec.when.fn(value))
        if not wanted:
            return None
        source = value.value if isinstance(value, Partial) else value
        if not isinstance(source, Source):
            source = records(source) if spec.read is None else spec.read.fn(source)
        assert spec.job is not None
        if step.digests:
            step.digest = job_digest(step, source)
        plan = make_plan(JobSpec(source=source, args=args, **spec.job))
        if plan.finished:
            from batchflow.jobs.resume import finished  # only for a job with nothing left to do

            return finished(plan, self._listeners)
        listeners = [*self._listeners, self._watch(spec.name)]
        run = JobRun(plan, self._executor, listeners, self._stop, self._budget, lazy=True)
        return RunningJob(run, run.result())

    def _found(self, step: StepState, at: int) -> Any:
        """Return an argument of a job, loaded in this process."""
        call = build_call(step)
        given = [one._replace(payloads=tuple(map(self._executor.fetch, one.payloads))) for one in call.values]
        return found(call._replace(values=tuple(given)), at)

    def turn(self) -> bool:
        """Advance each job as far as possible; returns whether one ended."""
        under_way = list(self._under_way.values())
        self._turns += 1
        first = self._turns % max(1, len(under_way))  # each comes first in its turn, so that all get their share
        for step, job in under_way[first:] + under_way[:first]:
            self._advance(step, job, partial(next, job.work))
        return len(self._under_way) < len(under_way)

    def hear(self, number: int, outcome: Outcome) -> None:
        """Pass an outcome to its job; an exception ends that job."""
        if number not in self._under_way:
            return
        step, job = self._under_way[number]
        try:
            job.run.scheduler.take(outcome)
        except Exception as error:
            self._advance(step, job, partial(job.work.throw, error))

    def _advance(self, step: StepState, job: RunningJob, move: Callable[[], object]) -> None:
        """Advance a job until it waits or ends."""
        try:
            move()
            return
        except StopIteration as end:
            del self._under_way[step.number]
            self._ends.job_ended(step, end.value, job.run.payloads, "succeeded")
        except InterruptedRun:  # it was stopped, and keeps on disk what it did
            del self._under_way[step.number]
            self._ends.job_stopped(step)
        except Exception as error:
            del self._under_way[step.number]
            self._ends.job_failed(step, error)

    def give_up(self) -> None:
        """Cancel running jobs."""
        for _, job in self._under_way.values():
            job.work.close()
        self._under_way.clear()
