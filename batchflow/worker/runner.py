"""Runs the work of one job in one process."""

from __future__ import annotations

import os
from typing import Any

from batchflow.errors import WorkerDied
from batchflow.formats import format_of
from batchflow.model import Assemble, Inspect, Merge, Outcome, Phase, Stats, Succeeded, Task, Work
from batchflow.rows import Rows
from batchflow.sources.base import Block
from batchflow.tables import as_table, concat
from batchflow.worker.failures import failed, placed, worker_name
from batchflow.worker.program import Program
from batchflow.worker.runs import BatchRun, RecordRun

_NOTHING = object()


class Runner:
    """Runs the work of one job in one process."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._state: Any = _NOTHING

    def perform(self, work: Work) -> Outcome:
        """Do one piece of work and return what came of it; never raises an `Exception`."""
        phase: Phase = "worker"
        try:
            if isinstance(work, Task):
                return self._task(work)
            if isinstance(work, Inspect):
                return self._inspect(work.task)
            phase = "call" if isinstance(work, Merge) else "write"
            return self._merge(work) if isinstance(work, Merge) else self._assemble(work)
        except KeyboardInterrupt:
            raise  # of the user at the keyboard, where this process is the driver
        except BaseException as error:  # noqa: BLE001 - a failure is a value
            return failed(work, phase, error)

    def _task(self, task: Task) -> Outcome:
        run = RecordRun if self._program.per == "record" else BatchRun
        return run(self._program, task, self._prepared()).outcome()

    def _prepared(self) -> tuple[Any, ...]:
        """Return what follows the record in each call: the value of ``setup=``, made once."""
        if self._program.setup is None:
            return ()
        if self._state is _NOTHING:
            self._state = self._program.setup()
        return (self._state,)

    def _inspect(self, task: Task) -> Outcome:
        """Count the numbers of a chunk, and place its record if it is but one."""
        ends: dict[int, int] = {}
        found: list[tuple[Block, int]] = []
        for block in self._program.source.read(task.chunk, task.data):
            ends[id(block.span)] = block.end
            found = (found + [(block, at) for at in range(min(2, len(block.numbers)))])[:2]
        outcome = failed(task, "worker", WorkerDied(""), sum(ends.values()))
        return placed(outcome, *found[0]) if len(found) == 1 else outcome

    def _assemble(self, work: Assemble) -> Outcome:
        writer = format_of(self._program.format or "parquet")
        if work.restate:
            writer.restate(work.pieces[0].path, work.schema, work.path)
        else:
            writer.assemble(work.pieces, work.schema, work.path)
        return Succeeded(work.key, Stats(worker_name()), (), os.stat(work.path).st_size)  # noqa: PTH116

    def _merge(self, work: Merge) -> Outcome:
        assert self._program.combine is not None
        table = concat(table for part in work.parts for table in part.tables)
        return Succeeded(work.key, Stats(worker_name()), (), Rows([as_table(self._program.combine(table))]))
