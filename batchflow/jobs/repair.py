"""Repair of an output: reruns only its failed records and inserts the results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from batchflow.checkpoint.history import DoneChunk, DonePart, History
from batchflow.checkpoint.ledger import refuse_busy
from batchflow.checkpoint.recovery import in_order, part_file
from batchflow.combiner.dataset_writer import DatasetWriter
from batchflow.combiner.patching import (
    FailedRange,
    FailedRangeCursor,
    Patch,
    find_holes,
    insertions,
    patched,
    replaced,
)
from batchflow.core.interrupts import InterruptHandler
from batchflow.core.outcomes import SettledChunk
from batchflow.errors import InterruptedRun, UsageError
from batchflow.jobs.scheduler import Scheduler
from batchflow.plan import Plan


def failed_chunks(plan: Plan) -> History:
    """Return the history of an output that can be retried.

    Raises
    ------
    UsageError
        If there is no output, or its job has not come to its end.
    """
    history = plan.history
    if plan.destination is None:
        message = "only an output on disk can be mended: the job needs into="
        raise UsageError(message)
    where = plan.destination.path
    refuse_busy(plan.destination.meta)
    if history is None:
        message = f"there is no output of an earlier run in {where}: run the job first"
        raise UsageError(message)
    if not history.ended and not history.mends:
        message = (
            f"the job that writes {where} has not come to its end: run it again first, and it goes on; "
            "without max_errors= where that stopped it"
        )
        raise UsageError(message)
    return history


class FailedRangeRun:
    """Retries the failed ranges of an output and patches its parts atomically.

    Parameters
    ----------
    plan
        Of the job that made the output, which came to its end.
    make_scheduler
        Makes the scheduler that runs the holes; gets what takes them, and what it is to ask whether to stop.
    account
        Called with each hole that was tried, in input order; raises if the retry is to stop.
    """

    def __init__(
        self,
        plan: Plan,
        make_scheduler: Callable[[Callable[[SettledChunk], None], Callable[[], bool]], Scheduler],
        account: Callable[[SettledChunk], None],
    ) -> None:
        assert plan.history is not None
        assert plan.destination is not None
        self._plan = plan
        self._destination = plan.destination
        self._make_scheduler = make_scheduler
        self._account = account
        self._chunks = dict(plan.history.chunks)
        self.chunks: dict[int, DoneChunk] = self._chunks
        """All chunks in their state after the retry."""
        ordered = [(number, done) for _, number, done in in_order(self._chunks, plan.inputs)]
        self._holes = list(find_holes([item for item in ordered if item[1].failures], plan.source))
        self._scheduler: Scheduler
        self.dataset: DatasetWriter = DatasetWriter(
            plan,
            lambda work, done: self._scheduler.delegate(work, done),
            lambda task: self._scheduler.again(task),
        )

    def run(self) -> None:
        """Retry all failed ranges, and commit the results."""
        with InterruptHandler() as brake:
            settled: list[SettledChunk] = []

            def deliver(one: SettledChunk) -> None:
                fitted = self.dataset.fitted(one)
                if fitted is not None:
                    self._account(fitted)
                    settled.append(fitted)

            self._scheduler = self._make_scheduler(deliver, brake.stopping)
            complete = False
            try:
                self._scheduler.open(self._resume, FailedRangeCursor(self._holes, self._plan.source))
                self._scheduler.run()
                if not brake.pressed:
                    self._commit(self._patches(settled), brake)
                    self.dataset.unite()
                    self._scheduler.run()
                    complete = not brake.pressed
            finally:
                self._scheduler.close(complete=complete)
            if brake.pressed:
                raise KeyboardInterrupt

    def _resume(self) -> Sequence[SettledChunk]:
        """Open the existing output; no chunk of it is settled again."""
        self.dataset.open(mends=True)
        return ()

    def _patches(self, settled: Sequence[SettledChunk]) -> list[Patch]:
        """Return the patch of each chunk that had failures, in input order."""
        patches: list[Patch] = []
        for at, parts in groupby(settled, key=lambda one: one.key[0]):
            hole = self._holes[at]
            if not hole.failures:
                patches += self._whole(hole, list(parts))
                continue
            if not patches or patches[-1].number != hole.number:
                patches.append(Patch(hole.number, self._chunks[hole.number]))
            for part in parts:
                patches[-1].fill(hole, part)
        return patches

    def _whole(self, hole: FailedRange, parts: Sequence[SettledChunk]) -> list[Patch]:
        """Return the patches of a chunk that was retried as a whole; its halves are new chunks."""
        numbers = [hole.number, *(self.dataset.ledger.number() for _ in parts[1:])]
        done = self._chunks[hole.number]
        return [replaced(hole, number, done, part) for number, part in zip(numbers, parts, strict=True)]

    def _commit(self, patches: Sequence[Patch], brake: InterruptHandler) -> None:
        changed: dict[int, DoneChunk] = {patch.number: patch.changed for patch in patches}
        self.chunks = {**self._chunks, **changed}
        order = [number for _, number, _ in in_order({**self._chunks, **changed}, self._plan.inputs)]
        schema = self.dataset.schema
        whole: list[DonePart] = []
        parts = {part.name: part for part in self.dataset.parts}
        for name, news in insertions(list(parts.values()), order, patches).items():
            path = str(part_file(self._destination, name))
            part, pieces = patched(parts[name], path, news, order)
            self.dataset.assemble(part._replace(schema=schema), pieces, whole.append)
        self._scheduler.run()
        if brake.pressed:
            raise InterruptedRun  # some parts may not have been put together, and it is all or nothing
        self.dataset.commit(whole, changed)
