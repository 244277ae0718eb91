"""A job, or a sample of it, run by several numbers of workers in turn: how its speed grows with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from statistics import median_low
from typing import Any

from batchflow.core.resources import Resources, busy_cores
from batchflow.errors import UsageError
from batchflow.executors import Executor, choose, turn_of
from batchflow.jobs.planner import make_plan
from batchflow.jobs.run import JobRun
from batchflow.jobs.trials.sampling import PieceCursor, Sample, output_of, sandboxed, take_sample
from batchflow.jobs.trials.scaling_report import WAITS, Scaling, ScalingPoint
from batchflow.jobs.trials.speedup import SCALES, find, fit_amdahl, fit_usl
from batchflow.plan import JobSpec, Plan
from batchflow.reporting.report import Report

BUSY = 0.25
"""Share of the cores that something else uses, beside which what is measured tells little;"""
BUSY_SECONDS = 0.2
"""and how long that is watched before."""
PIECES = 16
"""Of a sample for each worker, so that none waits long for the last one;"""
MOST_PIECES = 10_000
"""and at most in all, where chunks have a fixed size."""


def measure(
    spec: JobSpec,
    executor: Executor | str | None,
    workers: Sequence[int],
    sample: float | str | None,
    rounds: int,
    tell: Callable[[str], object] | None,
) -> Scaling:
    """Run a job in turn with several numbers of workers; see `Job.scale`."""
    counts = _counts(workers)
    if rounds < 1:
        message = f"rounds={rounds}: at least one is needed"
        raise UsageError(message)
    with sandboxed(spec) as (trial, notes), ExitStack() as stack:
        plan = make_plan(trial, output=output_of(spec))
        taken = _sample(plan, sample, counts[-1])
        bench = _ScalingBench(plan, taken, stack, executor, notes)
        counts = [count for count in counts if bench.has_room(count)]
        start = min(bench.warm_up(count) for count in counts)  # what is more than the least is some other's doing
        seen: dict[int, list[Report]] = {count: [] for count in counts}
        for round_ in range(rounds):
            for count in counts[:: -1 if round_ % 2 else 1]:  # what changes with time hits each number alike
                report = bench.run(count)
                if tell is not None:
                    many = "workers" if count > 1 else "worker"
                    tell(f"{count} {many}, round {round_ + 1} of {rounds}: {report.seconds:.2f} s")
                seen[count].append(report)
        return _found(bench, seen, rounds, start)


def _counts(workers: Sequence[Any]) -> list[int]:
    """Return the numbers of workers in order, one worker among them, which all others are compared with."""
    for count in workers:
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            message = f"workers={count!r}: give whole numbers of workers, like (1, 2, 4)"
            raise UsageError(message)
    return sorted({1, *workers})


def _sample(plan: Plan, sample: float | str | None, most: int) -> Sample | None:
    """Return the sample that was asked for; ``None``: the whole input is used."""
    if plan.total is None:
        message = "these records come from a generator, which gives each of them once: pass a list instead"
        raise UsageError(message)
    if sample is None:
        return None
    wanted = _weight(plan, sample)
    if wanted >= plan.total:
        return None
    pieces = PIECES * most if plan.chunk_weight is None else min(MOST_PIECES, wanted // plan.chunk_weight)
    return take_sample(plan.source, plan.inputs, wanted, pieces)


def _weight(plan: Plan, sample: float | str) -> int:
    """Return the weight of a sample, written as a number of records or as a share: ``"5%"``, ``0.05``."""
    text = str(sample).replace("_", "").replace(",", "")
    try:
        number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        share = number if "%" in text or "." in text else None
        records = int(text) if share is None else 1
    except ValueError:
        share, records = None, 0
    if records < 1 or (share is not None and not 0 < share <= 1):
        message = f"sample={sample!r}: give a number of records, or a share of the input like '5%'"
        raise UsageError(message)
    if share is not None:
        return round((plan.total or 0) * share)
    return round(records * plan.source.record_weight(plan.inputs))


class _ScalingBench:
    """Runs the same work with any number of workers, which are started once for each number."""

    def __init__(
        self,
        plan: Plan,
        sample: Sample | None,
        stack: ExitStack,
        executor: Executor | str | None,
        notes: list[str],
    ) -> None:
        self.plan = plan
        self.sample = sample
        self.notes = notes
        self._stack = stack
        self._runs = 0
        self._first = choose(executor, needs_ray=plan.spec.per_task.needs_ray)
        stack.enter_context(turn_of(self._first).taken())
        self._own = self._first is not executor and self._first.name == "processes"
        self._pool: dict[int, Executor] = {}
        if not self._own and not self._first.warm:
            stack.enter_context(self._first)
        self.name = self._first.name
        self.cores = self._first.budget(Resources()).slots
        busy = busy_cores(BUSY_SECONDS) if self.name != "ray" else 0.0
        if busy > BUSY * self.cores:
            told = f"{busy:.1f} of {self.cores} cores"
            notes.append(f"the machine was busy before ({told}): measure again when it is idle")

    @property
    def share(self) -> float:
        """Of the input that is used."""
        return 1.0 if self.sample is None else self.sample.share

    def has_room(self, count: int) -> bool:
        """Whether so many workers run side by side; notes it where they do not."""
        plan, executor = self._with(count)
        slots = executor.slots(plan.spec.limits, plan.spec.per_task)
        if slots < count:
            self.notes.append(f"{count} workers were not measured: {self.name} has room for {slots}")
        return slots == count

    def _with(self, count: int) -> tuple[Plan, Executor]:
        """Return plan and executor for a number of workers."""
        spec = self.plan.spec
        if self._own:
            limits = spec.limits._replace(cpus=None)
            if count not in self._pool:
                from batchflow.executors import Processes  # only who measures them needs it

                self._pool[count] = self._stack.enter_context(Processes(workers=count))
            executor = self._pool[count]
        else:
            each = 1 if spec.per_task.cpus is None else spec.per_task.cpus
            limits = spec.limits._replace(cpus=count * each if each else count / 4)
            executor = self._first
        return replace(self.plan, spec=replace(spec, limits=limits)), executor

    def warm_up(self, count: int) -> float:
        """Start workers, and return the seconds until they began their first tasks."""
        few = take_sample(self.plan.source, self.plan.inputs, 2 * count, 2 * count).pieces
        report = self._run(count, few[: 2 * count])
        return report.time["start"] / max(1, len(report.busy))

    def run(self, count: int) -> Report:
        """Do the work."""
        return self._run(count, None if self.sample is None else self.sample.pieces)

    def _run(self, count: int, pieces: Sequence[Any] | None) -> Report:
        plan, executor = self._with(count)
        self._runs += 1
        if plan.destination is not None:
            path = plan.destination.path
            path = path.with_name(f"{self._runs}-{path.name}")
            plan = replace(plan, destination=replace(plan.destination, path=path))
        run = JobRun(plan, executor, [], cursor=None if pieces is None else PieceCursor(pieces))
        report = run.drive(run.result()).report
        if plan.destination is not None:
            plan.destination.store.remove_all(plan.destination.path)
            plan.destination.store.remove_all(plan.destination.meta)
        return report


def _found(bench: _ScalingBench, seen: dict[int, list[Report]], rounds: int, start: float) -> Scaling:
    """Return what the rounds show."""
    base = median_low(report.seconds for report in seen[1])
    points = tuple(_point(count, reports, base, bench.cores) for count, reports in seen.items())
    report = points[0].report
    waits = report.cpu_seconds < WAITS * report.task_seconds
    telling = [point for point in points if waits or not point.beyond]  # beyond the cores no law holds
    measured = [(point.workers, point.speedup) for point in telling]
    many = telling[-1]
    splitting = 0.0 if bench.sample is None else bench.sample.seconds
    failed = report.failed
    notes = [*bench.notes, *([f"{failed:,} records failed in each round"] if failed else [])]
    if bench.plan.spec.rate is not None:
        notes.append("the job has a rate, which more workers do not raise")
    return Scaling(
        points,
        bench.cores,
        bench.share,
        rounds,
        start,
        fit_amdahl(measured),
        fit_usl(measured),
        SCALES if many.workers == 1 else find(report, many.report, start, bench.share, splitting),
        bench.plan.spec.chunk,
        bench.name,
        tuple(notes),
    )


def _point(count: int, reports: Sequence[Report], base: float, cores: int) -> ScalingPoint:
    seconds = [report.seconds for report in reports]
    middle = median_low(seconds)
    report = reports[seconds.index(middle)]
    return ScalingPoint(count, middle, min(seconds), max(seconds), base / middle, count > cores, report)
