"""A job as a frozen value: plan it, run it, or stream its tables."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from batchflow.brake import Brake
from batchflow.combining.errors_table import ErrorTable
from batchflow.combining.order import Settled
from batchflow.combining.replay import replay
from batchflow.combining.result import Result, tell
from batchflow.errors import InterruptedRun, StoppedError, UsageError
from batchflow.events import Listener
from batchflow.executors import Executor, choose
from batchflow.ledger import read_ledger
from batchflow.mending import Mending, failed_chunks
from batchflow.plan import JobSpec, Plan, make_plan
from batchflow.progress import Progress
from batchflow.rate import parse_rate
from batchflow.report import ReportBuilder
from batchflow.rows import Rows
from batchflow.scheduler import Scheduler
from batchflow.tables import concat
from batchflow.worker import Program

if TYPE_CHECKING:
    import pyarrow as pa

    from batchflow.combining.dataset import Dataset

FRACTION_RECORDS = 1000
"""Records that must have been read before a fraction in ``max_errors`` may stop a job before its end."""


@dataclass(frozen=True)
class Job(JobSpec):
    """A function, its input, its output and its caps, as one frozen value.

    The fields are the arguments of `batchflow.map_records`; ``per`` is ``"record"`` or ``"batch"``.
    """

    _: KW_ONLY
    executor: Executor | str | None = None
    progress: bool | None = None
    listeners: Sequence[Listener] = field(default=())
    """Called with every event of `batchflow.events`."""

    def plan(self) -> Plan:
        """Check the job and list its inputs; runs nothing.

        Raises
        ------
        UsageError
            Whatever would make the job fail later.
        """
        plan = make_plan(self)
        with _chosen(self) as executor:
            executor.slots(self.limits, self.per_task)
        return plan

    def run(self) -> Result:
        """Run the job to its end; what earlier runs did of its output is not done again.

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
        if plan.finished:
            return _finished(self, plan)
        with _chosen(self) as executor:
            return _Run(self, plan, executor).result()

    def retry_failed(self) -> Result:
        """Run again only the records and chunks in the error table of the output.

        What now succeeds goes to its place in the output, in order; the rest stays in the table. If the
        function was mended meanwhile, the job needs a ``version``.

        Raises
        ------
        UsageError
            If there is no output of this job that came to its end.
        """
        plan = make_plan(self, known_only=True)
        history = failed_chunks(plan)
        if history.ended and not any(done.failures for done in history.chunks.values()):
            return _finished(self, plan)
        with _chosen(self) as executor:
            return _Run(self, plan, executor).mended()

    def stream(self, *, ordered: bool = True) -> Iterator[pa.Table]:
        """Yield the rows as tables while they come, with bounded memory; closing the iterator stops the work.

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
        with _chosen(self) as executor:
            yield from _Run(self, plan, executor).tables(ordered=ordered)


@contextmanager
def _chosen(job: Job) -> Iterator[Executor]:
    """Give the executor of a job, and close it again unless it is warm."""
    executor = choose(job.executor, needs_ray=job.per_task.needs_ray)
    try:
        yield executor
    finally:
        if not executor.warm:
            executor.close()


class _Run:
    """One run of a job: scheduler, combiner, error table and report side by side."""

    def __init__(self, job: Job, plan: Plan, executor: Executor) -> None:
        self._job = job
        self._plan = plan
        self._executor = executor
        self._errors = ErrorTable()
        self._report = ReportBuilder()
        self._seen = 0
        self._listeners: list[Listener] = [self._report, Progress(job.progress), *job.listeners]

    def _scheduler(self, *, tables: bool = False, **options: Any) -> Scheduler:
        program = program_of(self._plan, tables=tables)
        return Scheduler(self._plan, self._executor, program, self._listeners, **options)

    @contextmanager
    def _opened(self, scheduler: Scheduler, resume: Callable[[], Sequence[Settled]] = tuple) -> Iterator[None]:
        complete = False
        try:
            scheduler.open(resume)
            yield
            complete = True
        finally:
            scheduler.close(complete=complete)

    def result(self) -> Result:
        """Run to the end and return everything."""
        if self._plan.destination is not None:
            return self._to_disk()
        if self._job.combine is not None:
            return self._combined()
        scheduler = self._scheduler()
        rows: list[Rows] = []
        with self._opened(scheduler):
            for settled in scheduler.settled():
                self._account(scheduler, settled)
                if settled.payload is not None:
                    rows.append(self._executor.fetch(settled.payload))
            self._check_end()
        return Result(self._errors, self._report.report(), rows)

    def _combined(self) -> Result:
        from batchflow.combining.fitting import Fitting  # only a job that needs tables waits for them
        from batchflow.combining.tree import Tree

        tree = Tree(lambda work, done: scheduler.delegate(work, done))
        scheduler = self._scheduler(waiting=tree.nbytes, tables=True)
        fitting = Fitting(self._plan, scheduler.again)
        with self._opened(scheduler):
            for settled in scheduler.settled():
                fitted = fitting.fit(settled, *([schema] for schema in settled.schemas))
                self._account(scheduler, fitted)
                if fitted is not None and fitted.payload is not None:
                    tree.add(fitted.payload, fitted.stats.held)
            self._check_end()
            while not tree.finish():
                scheduler.turn()
            rows = [] if tree.payload is None else [self._executor.fetch(tree.payload)]
        return Result(self._errors, self._report.report(), rows)

    def _to_disk(self) -> Result:
        from batchflow.combining.dataset import Dataset  # only a job that writes waits for it

        dataset = Dataset(
            self._plan,
            lambda work, done: scheduler.delegate(work, done),
            lambda task: scheduler.again(task),
        )
        complete = False
        try:
            with Brake() as brake:
                scheduler = self._scheduler(note=dataset.note, stopping=brake.stopping)
                self._write(scheduler, dataset, brake)
            complete = True
        except KeyboardInterrupt as error:
            raise InterruptedRun(self._told_interrupted()) from error
        finally:
            if not complete:
                dataset.leave(self._errors, self._report.report())
            dataset.close(complete=complete)
        return Result(self._errors, self._report.report(), (), self._plan.destination, dataset.schema)

    def _write(self, scheduler: Scheduler, dataset: Dataset, brake: Brake) -> None:
        with self._opened(scheduler, dataset.open):  # the folder is made once the function could be shipped
            for settled in scheduler.settled():
                self._account(scheduler, dataset.add(settled))
            if brake.pressed:
                raise InterruptedRun
            self._check_end()
            dataset.flush()
            _finish(scheduler)
            dataset.unite()
            _finish(scheduler)
            if brake.pressed:
                raise InterruptedRun
        dataset.finish(self._errors, self._report.report())

    def mended(self) -> Result:
        """Run again what failed, and return what the output is then."""
        mending = Mending(self._plan, lambda stopping: self._scheduler(stopping=stopping))
        complete = False
        try:
            mending.run()
            result = self._retold(mending.dataset)
            complete = True
        except KeyboardInterrupt as error:
            raise InterruptedRun(self._told_interrupted()) from error
        finally:
            mending.dataset.close(complete=complete)
        return result

    def _retold(self, dataset: Dataset) -> Result:
        """Write error table and report anew, from the ledger."""
        destination = self._plan.destination
        assert destination is not None
        known = {item.uri: item for item in self._plan.inputs}
        report = ReportBuilder()
        errors = replay(read_ledger(destination.meta, known), self._plan.inputs, [report])
        told = replace(self._report.report(), **report.totals())
        dataset.finish(errors, told)
        return Result(errors, told, (), destination, dataset.schema)

    def _told_interrupted(self) -> str:
        assert self._plan.destination is not None
        return f"interrupted: what is done is kept in {self._plan.destination.path}; run the same again to go on"

    def tables(self, *, ordered: bool) -> Iterator[pa.Table]:
        """Yield tables as they come; where they come in order, their types go with those before."""
        from batchflow.combining.fitting import Fitting  # as above

        early: deque[Any] = deque()
        scheduler = self._scheduler(bounded=True, early=None if ordered else early.append, tables=True)
        fitting = Fitting(self._plan, scheduler.again)
        with self._opened(scheduler):
            for _ in scheduler.turns():
                for settled in scheduler.released():
                    fitted = fitting.fit(settled, *([schema] for schema in settled.schemas))
                    self._account(scheduler, fitted)
                    if fitted is not None and fitted.payload is not None:
                        early.append(fitted.payload)
                while early:
                    yield from self._shown(early.popleft())
            self._check_end()

    def _shown(self, payload: Any) -> Iterator[pa.Table]:
        rows: Rows = self._executor.fetch(payload)
        table = concat(rows.tables)
        if table.num_rows:
            yield table

    def _account(self, scheduler: Scheduler, settled: Settled | None) -> None:
        """Tell of a chunk, add up what failed, and stop where it is too much; not of one that comes again."""
        if settled is None:
            return
        settled = scheduler.announce(settled)
        self._errors.add(settled.failures)
        self._seen += settled.stats.rows_in
        limit = self._job.max_errors
        if settled.failures and limit is not None and isinstance(limit, int) and self._errors.rows > limit:
            self._stop()
        if isinstance(limit, float) and self._seen >= FRACTION_RECORDS:
            self._check_fraction(limit)

    def _check_end(self) -> None:
        if isinstance(self._job.max_errors, float):
            self._check_fraction(self._job.max_errors)

    def _check_fraction(self, limit: float) -> None:
        if self._errors.rows > limit * self._seen:
            self._stop()

    def _stop(self) -> None:
        errors = self._errors.table()
        message = f"stopped: more than max_errors={self._job.max_errors} failed; {tell(errors)}"
        raise StoppedError(message, errors, self._report.report())


def _finish(scheduler: Scheduler) -> None:
    """Wait for the work of the combiner."""
    while scheduler.turn():
        pass


def _finished(job: Job, plan: Plan) -> Result:
    """Return the result of a job that earlier runs did."""
    from batchflow.combining.recovery import check_parts

    assert plan.history is not None
    assert plan.destination is not None
    check_parts(plan.destination, plan.history)
    report = ReportBuilder()
    errors = replay(plan.history, plan.inputs, [report, *job.listeners])
    schema = next((part.schema for part in reversed(plan.history.parts.values())), None)
    return Result(errors, report.report(), (), plan.destination, schema)


def program_of(plan: Plan, *, tables: bool = False) -> Program:
    """Return what the workers need to know of a plan.

    Parameters
    ----------
    tables
        The rows of each chunk are one table, which must go with those of other chunks.
    """
    spec, destination = plan.spec, plan.destination
    return Program(
        spec.fn,
        plan.source.shipped(),
        spec.per,
        spec.setup,
        spec.args,
        spec.combine,
        destination.format if destination else None,
        str(destination.pieces) if destination else "",
        tables,
        spec.retry,
        spec.timeout,
        spec.per_task.nbytes,
        os.getcwd(),  # noqa: PTH109 - its text is what is wanted
        spec.concurrency,
        None if spec.rate is None else parse_rate(spec.rate),
    )


