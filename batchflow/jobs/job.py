"""Job as a frozen value: plan it, run it, or stream its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from batchflow.combiner.result import Result
from batchflow.core.garbage_collection import relaxed_gc
from batchflow.errors import UsageError
from batchflow.events import Listener
from batchflow.executors import Executor, chosen
from batchflow.jobs.planner import make_plan
from batchflow.jobs.run import JobRun
from batchflow.plan import JobSpec, Plan
from batchflow.reporting.progress.listener import Progress

if TYPE_CHECKING:
    import pyarrow as pa

    from batchflow.jobs.trials.forecast import Forecast
    from batchflow.jobs.trials.scaling_report import Scaling


@dataclass(frozen=True)
class Job(JobSpec):
    """Function, input, output and limits, as one frozen value.

    The fields are the arguments of `batchflow.map_records`; ``per`` is ``"record"`` or ``"batch"``.
    """

    _: KW_ONLY
    executor: Executor | str | None = None
    progress: bool | None = None
    listeners: Sequence[Listener] = field(default=())
    """Callables that receive every event of `batchflow.events`."""

    def plan(self) -> Plan:
        """Check the job and list its inputs; runs nothing.

        Raises
        ------
        UsageError
            Whatever would make the job fail later.
        """
        plan = make_plan(self)
        with chosen(self.executor, needs_ray=self.per_task.needs_ray) as executor:
            executor.slots(self.limits, self.per_task)
        return plan

    def forecast(self, records: int = 5000) -> Forecast:
        """Plan the job, and try a sample of it in one worker, for a fraction of a second.

        The function is called for real, with records from all over the input, inside the limits of a task; what
        comes of it is thrown away.

        Parameters
        ----------
        records
            At most, if there is time for so many; 0 calls nothing.

        Raises
        ------
        UsageError
            As for `plan`; what only trying tells is in `Forecast.problems`.
        """
        from batchflow.jobs.trials.dry_run import forecast  # only who plans needs it

        with chosen(self.executor, needs_ray=self.per_task.needs_ray) as executor:
            return forecast(self, executor, records)

    def run(self) -> Result:
        """Run the job; work finished by earlier runs is not repeated.

        Raises
        ------
        UsageError
            If the job cannot work; nothing has run then.
        StoppedError
            If more records failed than ``max_errors`` allows.
        OutputError
            If the output cannot be written, because a disk is full, say.
        """
        plan = make_plan(self)
        with chosen(self.executor, needs_ray=self.per_task.needs_ray) as executor, relaxed_gc():
            if plan.finished:
                from batchflow.jobs.resume import finished  # only for a job with nothing left to do

                return self._with_job(finished(plan, self.listeners))
            run = self._run_of(plan, executor)
            return self._with_job(run.drive(run.result()))

    def retry_failed(self) -> Result:
        """Retry only the records and chunks in the error table of the output.

        What now succeeds goes to its place in the output, in order; the rest stays in the table. If the
        function was mended meanwhile, the job needs a ``version``.

        Raises
        ------
        UsageError
            If there is no output of this job that came to its end.
        """
        from batchflow.jobs.repair import (
            failed_chunks,  # with ledger and stores, a fifth of the start of a small job
        )

        plan = make_plan(replace(self, fresh=False), known_only=True)
        history = failed_chunks(plan)
        with chosen(self.executor, needs_ray=self.per_task.needs_ray) as executor:
            if history.ended and not any(done.failures for done in history.chunks.values()):
                from batchflow.jobs.resume import finished  # only for a job with nothing left to do

                return self._with_job(finished(plan, self.listeners))
            return self._with_job(self._run_of(plan, executor).mended())

    def _with_job(self, result: Result) -> Result:
        """Attach the job to a result whose failed records can be retried."""
        if self.into is not None:
            result._job = self
        return result

    def stream(self, *, ordered: bool = True) -> Iterator[pa.Table]:
        """Yield the rows as tables with bounded memory; closing the iterator stops the work.

        Parameters
        ----------
        ordered
            In input order; otherwise in the order of completion.

        Raises
        ------
        UsageError, StoppedError
            As for `run`.
        """
        if self.into is not None or self.combine is not None:
            message = "a stream has no into= and no combine=: write or combine its tables where they arrive"
            raise UsageError(message)
        plan = make_plan(self)
        return self._streamed(plan, ordered=ordered)

    def _streamed(self, plan: Plan, *, ordered: bool) -> Iterator[pa.Table]:
        with chosen(self.executor, needs_ray=self.per_task.needs_ray, streams=True) as executor:
            yield from self._run_of(plan, executor).tables(ordered=ordered)

    def scale(
        self,
        workers: Sequence[Any] = (1, 2),
        *,
        sample: float | str | None = None,
        rounds: int = 3,
        tell: Callable[[str], object] | None = None,
    ) -> Scaling:
        """Run the job in turn with several numbers of workers, and return how its speed grows with them.

        The function is called for real, several times on the same records. What comes of it is thrown away: with
        ``into=`` it is written to a temporary folder beside the output.

        Parameters
        ----------
        workers
            How many run side by side; one is always among them.
        sample
            Records, or a share like ``"5%"`` or ``0.05``, in pieces spread over the input; by default all of it.
        rounds
            How often each number has its turn; medians count.
        tell
            Called with a line of text after each run.

        Raises
        ------
        UsageError
            If the job cannot work, or its records come from a generator.
        """
        from batchflow.jobs.trials.scale import measure  # only who measures needs it

        return measure(self, self.executor, workers, sample, rounds, tell)

    def _run_of(self, plan: Plan, executor: Executor) -> JobRun:
        return JobRun(plan, executor, [Progress(self.progress), *self.listeners])
