"""Reconciliation of the schema of a chunk with that of all rows before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from batchflow.core.outcomes import Failure, SettledChunk
from batchflow.core.work import Task
from batchflow.errors import SchemaError
from batchflow.io.arrow.schema import unify
from batchflow.plan import Plan

if TYPE_CHECKING:
    import pyarrow as pa


class SchemaReconciler:
    """Compares each chunk with the schema of all rows before it, however the input was split.

    A chunk was converted before those in front of it were known. If its types do not go with theirs, it
    is done once more with their schema given, and the records at fault fail alone; only where the
    function gives whole tables does the chunk fail as a whole.

    Parameters
    ----------
    plan
        The job.
    again
        Has a chunk done once more; it comes out again, in its place.
    schema
        Of rows that are there already.
    unite
        Returns the schema of rows before and rows now.
    """

    def __init__(
        self,
        plan: Plan,
        again: Callable[[Task], None],
        schema: pa.Schema | None = None,
        unite: Callable[[pa.Schema | None, pa.Schema, str], pa.Schema] = unify,
    ) -> None:
        self._unite = unite
        self._by_record = plan.spec.per == "record"
        self._again = again
        self._schemas: list[pa.Schema | None] = [schema]

    @property
    def schema(self) -> pa.Schema | None:
        """Schema of all rows so far, with marks."""
        return self._schemas[0]

    @schema.setter
    def schema(self, schema: pa.Schema | None) -> None:
        self._schemas[0] = schema

    def fit(self, settled: SettledChunk, *stages: Iterable[pa.Schema]) -> SettledChunk | None:
        """Return a chunk that fits the rows before it, or that failed; ``None`` if it is reprocessed.

        Parameters
        ----------
        stages
            Schemas of its rows, and of what was made of those.
        """
        try:
            self._schemas = self._united(stages, name_of(settled))
        except SchemaError as error:
            if self._by_record and settled.task.schema is None and self.schema is not None:
                self._again(settled.task._replace(schema=self.schema))
                return None
            return _refused(settled, error)
        return settled

    def _united(self, stages: Sequence[Iterable[pa.Schema]], where: str) -> list[pa.Schema | None]:
        united: list[pa.Schema | None] = []
        for before, schemas in zip_longest(self._schemas, stages):
            united.append(before)
            for schema in schemas or ():
                united[-1] = self._unite(united[-1], schema, where)
        return united


def name_of(settled: SettledChunk) -> str:
    """Return the range of a chunk in words."""
    span = settled.chunk.spans[0]
    return f"{span.input.uri}[{span.start}:{'' if span.stop is None else span.stop}]"


def _refused(settled: SettledChunk, error: SchemaError) -> SettledChunk:
    """Return a chunk as failed because its rows have an incompatible schema."""
    span = settled.chunk.spans[0]
    failure = Failure(
        span.input.uri,
        span.start,
        span.stop,
        None,
        None,
        "convert",
        "SchemaError",
        str(error),
        worker=settled.stats.worker,
        seconds=settled.stats.seconds,
    )
    spans = tuple(count._replace(rows_out=0, failed=count.rows_in) for count in settled.stats.spans)
    stats = settled.stats._replace(spans=spans, held=0)
    return settled._replace(stats=stats, failures=(*settled.failures, failure), payload=None)
