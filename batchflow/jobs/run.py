"""Run of a job: connects scheduler, combiner, error table and report."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from batchflow.checkpoint.destination import Destination
from batchflow.combiner.error_table import ErrorTable, describe_errors
from batchflow.combiner.result import Result
from batchflow.core.functions import describe
from batchflow.core.interrupts import InterruptHandler
from batchflow.core.outcomes import LEADING, SettledChunk
from batchflow.core.resources import Budget
from batchflow.core.text import printable
from batchflow.errors import InterruptedRun, StoppedError
from batchflow.events import Listener
from batchflow.executors import Executor
from batchflow.io.arrow.rows import Rows
from batchflow.io.arrow.schema import concat
from batchflow.io.sources.base import ChunkCursor
from batchflow.jobs.plan_views import job_record, program_of, terms_of
from batchflow.jobs.scheduler import Scheduler
from batchflow.jobs.setup_failures import SetupError
from batchflow.plan import Plan
from batchflow.reporting.report import Report, ReportBuilder
from batchflow.reporting.timeline import Timeline

if TYPE_CHECKING:
    import pyarrow as pa

    from batchflow.checkpoint.history import DoneChunk
    from batchflow.combiner.dataset_writer import DatasetWriter
    from batchflow.reporting.task_output import OutputTail


T = TypeVar("T")
Resumable = Generator[None, None, T]
"""Cooperative task that yields to wait for outcomes, so that many can share one executor."""

FRACTION_RECORDS = 1000
"""Minimum records read before a fraction in ``max_errors`` may stop a running job."""


class StopSignal(Protocol):
    """Request to stop, from Ctrl-C or from the owner of several jobs."""

    @property
    def pressed(self) -> bool:
        """Whether no new work may start."""

    def stopping(self) -> bool:
        """Return whether no new work may start."""


class JobRun:
    """Run of a job: connects scheduler, combiner, error table and report.

    Parameters
    ----------
    plan
        Of the job.
    executor
        Started and closed by the caller.
    listeners
        Hear every event.
    brake
        Of whoever runs many jobs; ``None``: one of its own, where what is done is kept on disk.
    budget
        What all jobs that share the executor may take together.
    lazy
        Rows stay where they are, and not in the result.
    cursor
        Gives the chunks, in the place of the plan's own source.

    Attributes
    ----------
    payloads : list
        Rows in memory, or references to them.
    """

    def __init__(
        self,
        plan: Plan,
        executor: Executor,
        listeners: Sequence[Listener],
        brake: StopSignal | None = None,
        budget: Budget | None = None,
        *,
        lazy: bool = False,
        cursor: ChunkCursor | None = None,
    ) -> None:
        self._lazy = lazy
        self._cursor = cursor
        self.payloads: list[Any] = []
        self._plan = plan
        self._executor = executor
        self._brake = brake
        self._budget = budget
        self._errors = ErrorTable()
        self._report = ReportBuilder(terms_of(plan))
        self._timeline = Timeline()
        self._seen = 0
        self._failed = 0
        self._retries = False
        self._lost: int | None = 0 if plan.spec.max_errors is None and cursor is None else None
        """Failed leading records, ``None`` after the first success or if not needed."""
        self._listeners: list[Listener] = [self._report, self._timeline, *listeners]
        self._tail: OutputTail | None = None
        self._needs_arrow = plan.destination is not None or plan.spec.per == "batch" or not plan.source.in_memory
        if plan.destination is not None:
            self._keep_output(plan.destination)
        self.scheduler: Scheduler

    @property
    def _warns(self) -> bool:
        """Whether to warn of failures, because the job sets no ``max_errors``."""
        return self._plan.spec.max_errors is None

    def _keep_output(self, destination: Destination) -> None:
        """Store the output of tasks next to the job's output; objects of a store cannot be appended to."""
        from pathlib import Path  # only a job that writes waits for them

        from batchflow.reporting.task_output import OUTPUT_LOG, OutputLog, OutputTail

        place = destination.meta / OUTPUT_LOG
        if isinstance(place, Path):
            self._listeners.append(OutputLog(place))
        else:
            self._tail = OutputTail(lambda: destination.store.read(place))
            self._listeners.append(self._tail)

    def drive(self, work: Resumable[T]) -> T:
        """Run a cooperative task to completion, waiting whenever it yields."""
        try:
            while True:
                next(work)
                try:
                    if self._needs_arrow:  # what comes back needs it: it takes 0.1 s, as in the workers now
                        import pyarrow  # noqa: F401
                    self.scheduler.wait()
                except BaseException as error:
                    work.throw(error)
        except StopIteration as end:
            result: T = end.value
            return result

    def result(self) -> Resumable[Result]:
        """Run the job and return its result."""
        if self._plan.destination is not None:
            return self._to_disk()
        return self._in_memory() if self._plan.spec.combine is None else self._combined()

    def _make_scheduler(
        self, deliver: Callable[[SettledChunk], object], *, tables: bool = False, **options: Any
    ) -> Scheduler:
        program = program_of(self._plan, tables=tables)
        if self._brake is not None:
            options.setdefault("stopping", self._brake.stopping)
        self.scheduler = Scheduler(
            self._plan, self._executor, program, deliver, self._listeners, budget=self._budget, **options
        )
        return self.scheduler

    @contextmanager
    def _opened(self, resume: Callable[[], Sequence[SettledChunk]] = tuple) -> Iterator[None]:
        complete = False
        try:
            self.scheduler.open(resume, self._cursor)
            yield
            complete = True
        except SetupError as error:
            raise self._setup_failed(error) from None
        finally:
            self.scheduler.close(complete=complete)

    def _setup_failed(self, error: SetupError) -> StoppedError:
        """Return the error of a job whose ``setup=`` raised, with the user's frames as a note."""
        failure = error.failure
        assert self._plan.spec.setup is not None
        worker = failure.worker or "one worker"
        where = f" on {worker}, though it works on other workers" if error.works_elsewhere else ""
        why = printable(f"{failure.error_type}: {failure.message}")
        resumes = ", which resumes" if self._plan.destination is not None else ""
        name = describe(self._plan.spec.setup)
        message = f"stopped: setup={name} failed{where}: {why}; fix it and run the same again{resumes}"
        stopped = StoppedError(message, self._errors.table(), self._report.report(), "setup")
        if failure.traceback:
            stopped.add_note("\n".join(map(printable, failure.traceback.splitlines())))
        return stopped

    def _in_memory(self) -> Resumable[Result]:
        def deliver(settled: SettledChunk) -> None:
            self._account(settled)
            if settled.payload is not None:
                rows = settled.payload if self._lazy else self._executor.fetch(settled.payload)
                if self._lazy or rows.segments:  # a filter may leave very many chunks without any
                    self.payloads.append(rows)

        scheduler = self._make_scheduler(deliver)
        with self._opened():
            yield from scheduler.turns()
            self._check_stopped()
            self._check_end()
        return self._held()

    def _check_stopped(self) -> None:
        """Stop if the owner of several jobs requested it."""
        if self._brake is not None and self._brake.pressed:
            raise InterruptedRun

    def _held(self) -> Result:
        """Return a result whose rows are in memory."""
        report = self._report.report()
        rows = () if self._lazy else self.payloads
        spec = self._plan.spec
        tabular = spec.per == "batch" or spec.combine is not None
        return Result(
            self._errors, report, rows, told=lambda: self._told(report), warns=self._warns, tabular=tabular
        )

    def _combined(self) -> Resumable[Result]:
        from batchflow.combiner.tree import ReductionTree  # only a job that combines waits for it

        def take(settled: SettledChunk) -> None:
            self._account(settled)
            if settled.payload is not None:
                tree.add(settled.payload, settled.stats.held)

        tree = ReductionTree(lambda work, done: scheduler.delegate(work, done))
        scheduler = self._make_scheduler(self._fitting(take), waiting=tree.nbytes, tables=True)
        with self._opened():
            yield from scheduler.turns()
            self._check_stopped()
            self._check_end()
            while not tree.finish():
                yield from scheduler.turns()
                self._check_stopped()
            if tree.payload is not None:
                self.payloads = [tree.payload if self._lazy else self._executor.fetch(tree.payload)]
        return self._held()

    def _fitting(self, take: Callable[[SettledChunk], object]) -> Callable[[SettledChunk], None]:
        """Return a consumer of chunks with a compatible schema; other chunks are reprocessed, or fail."""
        from batchflow.combiner.schema import SchemaReconciler  # only a job that needs tables waits for it

        fitting = SchemaReconciler(self._plan, lambda task: self.scheduler.again(task))

        def deliver(settled: SettledChunk) -> None:
            fitted = fitting.fit(settled, *([schema] for schema in settled.schemas))
            if fitted is not None:
                take(fitted)

        return deliver

    def _to_disk(self) -> Resumable[Result]:
        from batchflow.combiner.dataset_writer import DatasetWriter  # only a job that writes waits for it

        dataset = DatasetWriter(
            self._plan,
            lambda work, done: self.scheduler.delegate(work, done),
            lambda task: self.scheduler.again(task),
        )
        complete = False
        try:
            with nullcontext(self._brake) if self._brake is not None else InterruptHandler() as brake:
                yield from self._write(dataset, brake)
            complete = True
        except KeyboardInterrupt:
            raise InterruptedRun(self._told_interrupted()) from None  # where it was tells nothing
        finally:
            if not complete:
                dataset.leave(self._errors, self._papers(self._report.report()))
            dataset.close(complete=complete)
        report = self._report.report()
        return Result(self._errors, report, (), self._plan.destination, dataset.schema, warns=self._warns)

    def _papers(self, report: Report) -> Mapping[str, bytes]:
        """Return the report files of an output."""
        from batchflow.reporting.export import render_reports  # only a job that writes waits for it

        return render_reports(self._told(report)) | (self._tail.papers() if self._tail else {})

    def _told(self, report: Report) -> dict[str, Any]:
        return job_record(self._plan, report, self._timeline, self._report.errors)

    def _write(self, dataset: DatasetWriter, brake: StopSignal) -> Resumable[None]:
        def deliver(settled: SettledChunk) -> None:
            added = dataset.add(settled)
            if added is not None:
                self._account(added)

        scheduler = self._make_scheduler(deliver, note=dataset.note, stopping=brake.stopping)
        with self._opened(dataset.open):  # the folder is made once the function could be shipped
            yield from scheduler.turns()
            if brake.pressed:
                raise InterruptedRun
            self._check_end()
            dataset.flush()
            yield from scheduler.turns()
            dataset.unite()
            yield from scheduler.turns()
            if brake.pressed:
                raise InterruptedRun
        dataset.finish(self._errors, self._papers(self._report.report()))

    def mended(self) -> Result:
        """Retry failed records, and return the result of the whole output."""
        from batchflow.jobs.repair import FailedRangeRun  # only here

        assert self._plan.history is not None
        self._retries = True
        self._seen = sum(
            done.stats.rows_in - min(done.stats.rows_in, len(done.failures))
            for done in self._plan.history.chunks.values()
        )
        mending = FailedRangeRun(
            self._plan,
            lambda deliver, stopping: self._make_scheduler(deliver, stopping=stopping),
            self._account_retried,
        )
        complete = False
        try:
            mending.run()
            result = self._retold(mending.dataset, mending.chunks)
            complete = True
        except SetupError as error:
            raise self._setup_failed(error) from None
        except KeyboardInterrupt:
            raise InterruptedRun(self._told_interrupted()) from None  # where it was tells nothing
        finally:
            mending.dataset.close(complete=complete)
        return result

    def _retold(self, dataset: DatasetWriter, chunks: dict[int, DoneChunk]) -> Result:
        """Rewrite error table and report."""
        from batchflow.jobs.resume import replay  # only here

        destination, history = self._plan.destination, self._plan.history
        assert history is not None
        whole = ReportBuilder(terms_of(self._plan))
        errors = replay(replace(history, chunks=chunks), self._plan.inputs, [whole])
        totals = whole.totals()
        before = totals["rows_in"] - self._report.records  # what was tried again is in the ledger too
        told = replace(self._report.report(), **totals | {"before": before})
        self._report.errors = whole.errors
        dataset.finish(errors, self._papers(told))
        return Result(errors, told, (), destination, dataset.schema, warns=self._warns)

    def _told_interrupted(self) -> str:
        assert self._plan.destination is not None
        return f"interrupted: what is done is kept in {self._plan.destination.path}; run the same again to go on"

    def tables(self, *, ordered: bool) -> Iterator[pa.Table]:
        """Yield tables as they complete; tables in input order have a compatible schema."""
        early: deque[Any] = deque()

        def take(settled: SettledChunk) -> None:
            self._account(settled)
            if settled.payload is not None:
                early.append(settled.payload)

        options: dict[str, Any] = {} if ordered else {"early": early.append}
        scheduler = self._make_scheduler(self._fitting(take), bounded=True, tables=True, **options)
        with self._opened():
            for _ in scheduler.turns():
                yield from self._shown(early)
                scheduler.wait()
            yield from self._shown(early)
            self._check_end()

    def _shown(self, payloads: deque[Any]) -> Iterator[pa.Table]:
        while payloads:
            rows: Rows = self._executor.fetch(payloads.popleft())
            table = concat(rows.tables)
            if table.num_rows:
                yield table

    def _account(self, settled: SettledChunk) -> None:
        """Report a chunk and count its failures; stop if there are too many."""
        settled = self.scheduler.announce(settled)
        self._errors.add(settled.failures)
        self._check_failures(settled)

    def _account_retried(self, settled: SettledChunk) -> None:
        """Count the failures of retried records, whose numbers in their input are not known yet."""
        self._errors.add([failure._replace(record=None) for failure in settled.failures])
        self._check_failures(settled)
        self._check_end()  # a fraction of the whole output, which was not over it

    def _check_failures(self, settled: SettledChunk) -> None:
        """Stop if too many records failed.

        Raises
        ------
        StoppedError
            Over ``max_errors``, or without one if all of the first records failed.
        """
        self._seen += settled.stats.rows_in
        self._failed += settled.stats.counts[2] or len(settled.failures)
        limit = self._plan.spec.max_errors
        if settled.failures and limit is not None and isinstance(limit, int) and self._failed > limit:
            self._stop()
        if isinstance(limit, float) and self._seen >= FRACTION_RECORDS:
            self._check_fraction(limit)
        if self._lost is not None:
            self._check_leading(settled)

    def _check_leading(self, settled: SettledChunk) -> None:
        """Stop if all of the first records failed, in input order and across chunks."""
        assert self._lost is not None
        rows_in, _, failed = settled.stats.counts
        if failed < rows_in:
            lost = self._lost + (0 if settled.before else settled.stats.leading)
            self._lost = None
        else:
            lost = self._lost = self._lost + (0 if settled.before else max(rows_in, len(settled.failures)))
        if lost >= LEADING:
            errors = self._errors.table()
            again, what = "", "fix the function and run it again"
            if self._retries:
                again, what = " again", "the output is unchanged: fix the function and retry"
            elif self._plan.destination is not None:
                what += " with fresh=True (--fresh)"
            message = (
                f"stopped: all of the first {LEADING:,} records failed{again}; {describe_errors(errors)}; {what}, "
                "or give max_errors= (--max-errors) to collect so many failures"
            )
            raise StoppedError(message, errors, self._report.report(), "all_failed")

    def _check_end(self) -> None:
        if isinstance(self._plan.spec.max_errors, float):
            self._check_fraction(self._plan.spec.max_errors)

    def _check_fraction(self, limit: float) -> None:
        if self._failed > limit * self._seen:
            self._stop()

    def _stop(self) -> None:
        errors = self._errors.table()
        message = f"stopped: more than max_errors={self._plan.spec.max_errors} failed; {describe_errors(errors)}"
        raise StoppedError(message, errors, self._report.report(), "max_errors")
