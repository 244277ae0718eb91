"""Dry run of a job in one worker, with a sample of its records."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean

from batchflow.checkpoint.destination import Destination
from batchflow.core.chunks import Chunk
from batchflow.core.resources import Resources
from batchflow.errors import BatchflowError, UsageError
from batchflow.events import Event, TaskEnded
from batchflow.executors import Executor
from batchflow.executors.program_loading import pickled
from batchflow.io.sources.base import KeyedChunk
from batchflow.io.sources.compression import RATIO
from batchflow.io.sources.splitter import expansion_factor, is_compressed
from batchflow.io.stores import Uri, is_uri
from batchflow.jobs.plan_views import program_of
from batchflow.jobs.planner import make_plan
from batchflow.jobs.run import JobRun
from batchflow.jobs.trials.forecast import Forecast, Trial
from batchflow.jobs.trials.sampling import PieceCursor, output_of, sandboxed, take_sample
from batchflow.plan import JobSpec, Plan

RECORDS = 5000
"""Maximum records of a sample."""
SECONDS = 0.3
"""Maximum seconds of work on a sample, for compressed files and for others."""
LOOK_SECONDS = 0.3
"""Maximum seconds for drawing the sample: a large CSV file must be read up to its pieces."""
PATIENCE = 2.0
"""Seconds after which a task of the sample is cancelled."""
_BEGINNING = 16 << 20
"""Weight that the sample is taken from where there is no time for more."""
_FILES = 4
"""Number of compressed files read to estimate their expansion."""
_PIECES = 8
"""Of each size, spread over the whole input. Single records come first, as they may take long; each size after
it is as many times as large, so that in the end what a task costs by itself counts for little."""


def forecast(spec: JobSpec, executor: Executor, records: int) -> Forecast:
    """Return the plan of a job with the measurements of a sample; 0 records run nothing."""
    plan = make_plan(spec)
    slots = executor.slots(spec.limits, spec.per_task)
    refused = tuple(_refusals(plan))
    if not records or refused or plan.finished or not plan.total:
        return Forecast(plan, slots, refused)
    if spec.per_task.needs_ray:
        return Forecast(plan, slots, refused)  # what it needs may be on other machines only
    try:
        return Forecast(plan, slots, refused, _tried(spec, records))
    except BatchflowError as error:
        return Forecast(plan, slots, (str(error) or type(error).__name__,))


def _refusals(plan: Plan) -> Iterator[str]:
    """Yield reasons that a job cannot run, found without calling user code."""
    try:
        pickled(program_of(plan))
    except UsageError as error:
        yield str(error)
    target = plan.destination
    if target is not None and isinstance(target.path, Uri):
        try:
            _probe(target, begun=plan.history is not None)
        except OSError as error:
            yield f"cannot write to {target.path}: {error}"


def _probe(target: Destination, *, begun: bool) -> None:
    """Write and delete a test object, with the folder marker that Arrow leaves if there was none."""
    probe, store = target.meta / "probe", target.store
    store.put(probe, b"")
    store.remove([probe])
    if begun:
        return
    if not store.sizes(target.meta):  # else a run has begun meanwhile, and what is there is its own
        store.remove_all(target.meta)


def _tried(spec: JobSpec, records: int) -> Trial:
    """Run a sample of a job in its own worker, within the limits of a task."""
    from batchflow.executors import Processes

    timeout = min(spec.timeout or PATIENCE, PATIENCE)
    with sandboxed(spec) as (trial, _), Processes(workers=1) as worker:
        trial = replace(trial, limits=Resources(), timeout=timeout, max_errors=None, chunk=None)
        plan = make_plan(trial, output=output_of(spec))
        pieces, spread = _pieces(plan, records)
        budget = _SampleBudget(plan.source.record_weight(plan.inputs) / _swelling(pieces))
        run = JobRun(plan, worker, [budget], cursor=PieceCursor(pieces, budget.allows))
        report = run.drive(run.result()).report
        written = spec.into is not None
        held = 0.0 if written else sum(rows.nbytes for rows in run.payloads) / max(1, budget.weight)
    # A record number counts from the start of its piece, which is of no use to anybody.
    kinds = tuple(kind._replace(example=_unnumbered(kind.example)) for kind in report.commonest)
    share = budget.weight / (plan.total or 1)
    notes = ["the sample was written to a temporary folder of this machine"] if is_uri(str(spec.into)) else []
    start = report.time["start"] + budget.loading
    return Trial(replace(report, commonest=kinds), share, spread, budget.rates, held, tuple(notes), start)


def _unnumbered(example: str) -> str:
    """Return an example without its record number."""
    source, comma, rest = example.rpartition(", record ")
    return f"{source}:{rest.partition(':')[2]}" if comma else example


def _pieces(plan: Plan, records: int) -> tuple[list[KeyedChunk], bool]:
    """Return pieces of growing size, each size spread over the input, and whether that is all of the input."""
    record = plan.source.record_weight(plan.inputs)
    sizes: list[list[KeyedChunk]] = []
    size, left, within = 1, records, None
    used: dict[str, int] = {}
    volume = sum(item.size * (RATIO if item.compression else 1) for item in plan.inputs)  # tiny files weigh more
    while left > 0:
        size = min(size, left)
        count = min(_PIECES, left // size)
        wanted = max(1, round(count * size * record))
        if wanted >= volume:
            if size > 1:
                break
            wanted = plan.total or 0
        seconds = LOOK_SECONDS if within is None else None
        sample = take_sample(plan.source, plan.inputs, wanted, count, seconds, within)
        if not sample.reached:
            within = _BEGINNING
            continue
        pieces = list(sample.pieces)
        if plan.source.kind != "files":  # which are a record each
            pieces = [_window(drawn, size, record, used) for drawn in pieces]
        random.Random(count).shuffle(pieces)  # few may be done, which are to be from anywhere
        sizes.append(pieces)
        left -= count * size
        size *= _PIECES
    taken = _apart(sizes)
    spread = within is None and not (len(plan.inputs) == 1 and used)
    return sorted(taken, key=lambda drawn: is_compressed(drawn.chunk)), spread


def _window(drawn: KeyedChunk, size: int, record: float, used: dict[str, int]) -> KeyedChunk:
    """Return some records of a compressed file instead of all of it, behind those that were used before."""
    span = drawn.chunk.spans[0]
    if span.input.compression is None:
        return drawn
    skip = used.get(span.input.uri, 0)
    used[span.input.uri] = skip + size
    return KeyedChunk((*drawn.key, skip), Chunk((span,), max(1, round(size * record)), skip, size))


def _swelling(pieces: Sequence[KeyedChunk]) -> float:
    """Return the ratio of actual to assumed size of the compressed files of a sample."""
    files = {drawn.chunk.spans[0].input for drawn in pieces if drawn.chunk.take is not None}
    known = [times for item in sorted(files)[:_FILES] if (times := expansion_factor(item))]
    return fmean(known) if known else 1.0


def _apart(sizes: Sequence[Sequence[KeyedChunk]]) -> list[KeyedChunk]:
    """Return pieces, small ones first, of which no two hold the same record.

    The smallest are kept, since it is by them that slow calls show, and of the others rather the largest.
    """
    covered: dict[str, list[tuple[int, float]]] = {}
    order = sorted(range(len(sizes)), key=lambda at: -at if at else -len(sizes))
    kept = {at: [drawn for drawn in sizes[at] if _is_new(drawn.chunk, covered)] for at in order}
    return [drawn for at in sorted(kept) for drawn in kept[at]]


def _is_new(chunk: Chunk, covered: dict[str, list[tuple[int, float]]]) -> bool:
    """Whether no record of a chunk is in the ranges covered so far, by input; if so they are, from now on."""
    if chunk.take is not None:
        return True  # it is behind all others of its file
    ranges = [(span.input.uri, span.start, math.inf if span.stop is None else span.stop) for span in chunk.spans]
    if any(start < end and begin < stop for uri, start, stop in ranges for begin, end in covered.get(uri, ())):
        return False
    for uri, start, stop in ranges:
        covered.setdefault(uri, []).append((start, stop))
    return True


class _SampleBudget:
    """Keeps a sample to its time, and tells what a unit of weight takes, compressed files by themselves.

    Parameters
    ----------
    record
        Weight of a record of a compressed file, by which a piece of one counts.
    """

    def __init__(self, record: float = 1.0) -> None:
        self._record = record
        self.weight = 0.0
        self._kinds = {True: _CostModel(), False: _CostModel()}

    def __call__(self, event: Event) -> None:
        if isinstance(event, TaskEnded) and event.chunk is not None:
            window = event.chunk.take is not None
            weight = event.stats.rows_in * self._record if window else event.weight
            self.weight += weight if event.ok else 0
            self._kinds[is_compressed(event.chunk)].add(weight, event.stats.seconds, ok=event.ok)

    def allows(self, drawn: KeyedChunk) -> bool:
        """Return whether there is time for a piece, by what those before took."""
        return self._kinds[is_compressed(drawn.chunk)].allows(drawn.chunk.weight)

    @property
    def rates(self) -> dict[bool, float]:
        """Seconds for a unit of weight, by whether it is compressed, as far as anything came to its end."""
        return {compressed: spent.rate for compressed, spent in self._kinds.items() if spent.rate is not None}

    @property
    def loading(self) -> float:
        """Seconds that the first task took longer than its weight tells: it loads what others find there."""
        return max((spent.loading for spent in self._kinds.values()), default=0.0)


class _CostModel:
    """Costs of the pieces of a sample."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._first: tuple[float, float] | None = None
        """The first task, which also loads what the others find there."""
        self._done: list[tuple[float, float]] = []

    def add(self, weight: float, seconds: float, *, ok: bool) -> None:
        """Record a task."""
        if self._first is None and ok:
            self._first = (weight, seconds)
        else:
            self._seconds += seconds
            self._done += [(weight, seconds)] if ok else []

    def allows(self, weight: int) -> bool:
        """Return whether there is time for a piece, by what those before took."""
        expected = (self.rate or 0.0) * weight if self._done else 0.0
        return self._seconds + expected < SECONDS

    @property
    def rate(self) -> float | None:
        """Seconds per unit of weight."""
        done = self._done or ([self._first] if self._first else [])
        if not done:
            return None
        most = max(weight for weight, _ in done)
        large = [(weight, seconds) for weight, seconds in done if weight > most / 2]
        return sum(seconds for _, seconds in large) / max(1, sum(weight for weight, _ in large))

    @property
    def loading(self) -> float:
        """Seconds that the first one took longer than its weight tells; 0 where no other one can tell."""
        if self._first is None or not self._done:
            return 0.0
        weight, seconds = self._first
        return max(0.0, seconds - weight * (self.rate or 0.0))
