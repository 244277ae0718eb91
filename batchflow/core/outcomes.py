"""The frozen values that travel between driver and workers: where data is, what to do, what came out.

Named tuples, since a frozen dataclass takes ten times as long to define and twice as long to pickle.
Their annotations are no text, as `from __future__ import annotations` makes them: each process that
starts would compile every one of them, 1 ms in all.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, overload

from batchflow.core.chunks import Chunk, Key
from batchflow.core.compact_pickle import CompactPickle
from batchflow.core.work import Task

Phase: TypeAlias = Literal["read", "call", "convert", "write", "timeout", "memory", "worker"]
"""Where a record or chunk failed."""


def _rebuild(number: int, *fields: Any) -> Any:
    """Return the object that was pickled by the number of its class."""
    return tuple.__new__(_COMPACT.classes[number], fields)


_COMPACT = CompactPickle(_rebuild)


@_COMPACT
class Position(NamedTuple):
    """Records of a chunk among which the function was when its task broke off."""

    span: int
    """Place of their span among those of the chunk."""
    first: int
    """Number of the first one within the span, from 0."""
    records: int = 1
    seconds: float = 0.0
    """Since the function was called for the first one."""


@_COMPACT
class Failure(NamedTuple):
    """One row of the error table, of a record or of a whole chunk."""

    source: str
    start: int | None
    """First unit of the failed range: byte offset, row or record, from 0."""
    stop: int | None
    record: int | None
    """Number of the record in its source, from 1; counted from the start of its span while it travels."""
    payload: str | None
    """The record itself, cut at ``PAYLOAD_LIMIT`` characters."""
    phase: Phase
    error_type: str
    message: str
    traceback: str = ""
    attempts: int = 1
    worker: str = ""
    seconds: float | None = None
    """Of the task, where the whole chunk failed."""
    row: int = 0
    """Rows that the chunk gave before it: where its own belong once it succeeds. No column of the error table."""


_new_failure = partial(tuple.__new__, Failure)
_FIELD_INDEX = {field: index for index, field in enumerate(Failure._fields)}


class Failures(Sequence[Failure]):
    """Failures of one chunk, stored by column.

    Thousands of failures are sent, numbered and written column by column, which takes a tenth of the time
    that it takes object by object. Iteration creates each `Failure` when it is needed.

    Parameters
    ----------
    columns
        One sequence for each field of `Failure`, all of the same length.
    """

    __slots__ = ("columns",)

    def __init__(self, columns: Sequence[Sequence[Any]]) -> None:
        self.columns: tuple[Sequence[Any], ...] = tuple(columns)

    @classmethod
    def of(cls, failures: Iterable[Failure]) -> "Failures":
        """Return failures by column; those that are stored so already are returned as they are."""
        if isinstance(failures, cls):
            return failures
        return cls(tuple(zip(*failures, strict=True)) or ((),) * len(Failure._fields))

    def column(self, field: str) -> Sequence[Any]:
        """Return the values of one field."""
        return self.columns[_FIELD_INDEX[field]]

    def replace(self, **columns: Sequence[Any]) -> "Failures":
        """Return the failures with other values of some fields."""
        pairs = zip(Failure._fields, self.columns, strict=True)
        return Failures([columns.get(field, column) for field, column in pairs])

    def __len__(self) -> int:
        return len(self.columns[0])

    def __iter__(self) -> Iterator[Failure]:
        return map(_new_failure, zip(*self.columns, strict=True))

    @overload
    def __getitem__(self, index: int) -> Failure: ...

    @overload
    def __getitem__(self, index: slice) -> "Failures": ...

    def __getitem__(self, index: int | slice) -> "Failure | Failures":
        cells = [column[index] for column in self.columns]
        return Failures(cells) if isinstance(index, slice) else _new_failure(cells)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return Failures, (self.columns,)


@_COMPACT
class SpanCount(NamedTuple):
    """What became of the records of one span."""

    uri: str
    positions: int = 0
    """Numbers used up, blank lines included; what the next span of the input counts on from."""
    rows_in: int = 0
    rows_out: int = 0
    failed: int = 0


@_COMPACT
class Stats(NamedTuple):
    """What one task did; times in seconds."""

    worker: str = ""
    started: float = 0.0
    """Seconds since the epoch, by the worker's clock."""
    seconds: float = 0.0
    read: float = 0.0
    call: float = 0.0
    convert: float = 0.0
    write: float = 0.0
    nbytes: int = 0
    """Bytes read."""
    held: int = 0
    """Bytes of the rows that were given back, which wait in memory until they are combined."""
    peak_memory: int = 0
    """Largest resident size of the worker process so far, in bytes."""
    spans: tuple[SpanCount, ...] = ()
    retries: int = 0
    """Calls of the function with records that were tried before, inside the task."""
    lanes: float = 0.0
    """Seconds that its calls took, by the number of them at once; 0 where they come one after the other."""
    cpu: float = 0.0
    """Seconds that its process computed meanwhile, on all its threads: the rest of its time it waited."""
    leading: int = 0
    """Records that failed before the first one that did not, up to `LEADING`."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """`rows_in`, `rows_out` and `failed` at once: they are asked for of each chunk."""
        if len(self.spans) == 1:
            return self.spans[0][2:]
        return self.rows_in, self.rows_out, self.failed

    @property
    def rows_in(self) -> int:
        """Records read, failed ones included."""
        return sum(span.rows_in for span in self.spans)

    @property
    def rows_out(self) -> int:
        """Rows given back."""
        return sum(span.rows_out for span in self.spans)

    @property
    def failed(self) -> int:
        """Records that ended in the error table."""
        return sum(span.failed for span in self.spans)


@_COMPACT
class Succeeded(NamedTuple):
    """Outcome of a task that read its chunk to the end; single records may have failed."""

    key: Key
    stats: Stats
    failures: Sequence[Failure] = ()
    payload: Any = None
    """Segments (tables and lists of objects, in order), a `Piece`, or an executor's reference to them."""
    schemas: tuple[Any, ...] = ()
    """Of rows that must go into one table with those of other chunks: as the function gave them, and combined."""
    digest: str = ""
    """Of the value of a step, where it was asked for."""
    printed: tuple[str, ...] = ()
    """Lines that it printed."""
    tallies: tuple[Any, ...] = ()
    """For each span with selected records, an array of the rows that each of them gave; -1: it was not read."""


@_COMPACT
class Failed(NamedTuple):
    """Outcome of a task that gave nothing back."""

    key: Key
    failure: Failure
    records: int | None = None
    """Records in the chunk, where the task got far enough to know: what halving needs."""
    stats: Stats = Stats()
    died: bool = False
    """The task broke off, most often with its worker: how many records it had is to be found out."""
    suspect: bool = False
    """What ended it may have come from outside, so it is tried alone before a record is blamed."""
    helped: bool = False
    """Another try may help, as the ``retry=`` of the job has it."""
    after: float | None = None
    """Seconds before another try, where the function asked for one."""
    gone: bool = False
    """The node that it ran on is gone, or what it took was on one that is: another one does it as well."""
    position: Position | None = None
    """Record that it broke off at, where that is known."""
    limit: float | None = None
    """Seconds that it took longer than."""
    unwritten: bool = False
    """Its rows could not be written, which is no fault of theirs: the disk is full, or gone."""
    unloadable: bool = False
    """The worker could not load the program of the job, so no work of the job can succeed there."""
    setup: bool = False
    """The ``setup=`` of the job raised or killed its worker, so that no record was called."""
    printed: tuple[str, ...] = ()
    """Lines that it printed."""


Outcome: TypeAlias = Succeeded | Failed

LEADING = 1000
"""Records of which all must have failed to stop a job that says nothing of ``max_errors=``."""
PAYLOAD_LIMIT = 1000
"""Characters of a record that the error table keeps."""
MESSAGE_LIMIT = 2000
"""Characters of a message that the error table keeps, without the hint behind it."""
TRACEBACK_LIMIT = 8000
"""Characters of a traceback that the error table keeps: its start and its end."""
TRACEBACKS = 10_000
"""Failures of one kind, of one type and raised at one line, that keep their traceback."""


class SettledChunk(NamedTuple):
    """A chunk that came to its end."""

    task: Task
    """The last attempt at it."""
    stats: Stats = Stats()
    failures: Sequence[Failure] = ()
    payload: Any = None
    counted: bool = True
    """Whether ``stats.spans`` tell how many records the chunk holds."""
    before: bool = False
    """Whether an earlier run did it."""
    schemas: tuple[Any, ...] = ()
    """Of the rows in memory, where they must go into one table: as the function gave them, and combined."""
    tallies: tuple[Any, ...] = ()
    """For each span with selected records, an array of the rows that each of them gave; -1: it was not read."""

    @property
    def key(self) -> Key:
        """Its place in the input."""
        return self.task.key

    @property
    def chunk(self) -> Chunk:
        """The chunk."""
        return self.task.chunk
