"""Outcomes, failures and statistics that travel from workers to the driver.

Named tuples are used because a frozen dataclass takes ten times as long to define and twice as long to pickle.
This module avoids ``from __future__ import annotations``: every process would compile the text of all annotations
at start, which takes 1 ms in total.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, overload

from batchflow.core.chunks import Chunk, Key
from batchflow.core.compact_pickle import CompactPickle
from batchflow.core.work import Task

Phase: TypeAlias = Literal["read", "call", "convert", "write", "timeout", "memory", "worker"]
"""Phase in which a record or chunk failed."""


def _rebuild(number: int, *fields: Any) -> Any:
    """Return the object that was pickled by the number of its class."""
    return tuple.__new__(_COMPACT.classes[number], fields)


_COMPACT = CompactPickle(_rebuild)


@_COMPACT
class Position(NamedTuple):
    """Records of a chunk that the function was processing when its task was aborted."""

    span: int
    """Index of the span in the chunk."""
    first: int
    """Number of the first record within the span, from 0."""
    records: int = 1
    seconds: float = 0.0
    """Seconds since the function was called for the first record."""


@_COMPACT
class Failure(NamedTuple):
    """One row of the error table, for a record or a whole chunk."""

    source: str
    start: int | None
    """Start of the failed range: byte offset, row or record, from 0."""
    stop: int | None
    record: int | None
    """Number of the record in its source, from 1; within a task, from the start of its span."""
    payload: str | None
    """Text of the record, truncated to ``PAYLOAD_LIMIT`` characters."""
    phase: Phase
    error_type: str
    message: str
    traceback: str = ""
    attempts: int = 1
    worker: str = ""
    seconds: float | None = None
    """Duration of the task, if the whole chunk failed."""
    row: int = 0
    """Rows of the chunk before the failure, used to insert late results. Not a column of the error table."""


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
        """Return failures by column; failures already stored so are returned as they are."""
        if isinstance(failures, cls):
            return failures
        return cls(tuple(zip(*failures, strict=True)) or ((),) * len(Failure._fields))

    def column(self, field: str) -> Sequence[Any]:
        """Return the values of one field."""
        return self.columns[_FIELD_INDEX[field]]

    def replace(self, **columns: Sequence[Any]) -> "Failures":
        """Return the failures with the values of some fields replaced."""
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
    """Record counts of one span."""

    uri: str
    positions: int = 0
    """Record numbers used, blank lines included; the next span of the input counts on from here."""
    rows_in: int = 0
    rows_out: int = 0
    failed: int = 0


@_COMPACT
class Stats(NamedTuple):
    """Statistics of one task; times in seconds."""

    worker: str = ""
    started: float = 0.0
    """Start time in seconds since the epoch, by the worker's clock."""
    seconds: float = 0.0
    read: float = 0.0
    call: float = 0.0
    convert: float = 0.0
    write: float = 0.0
    nbytes: int = 0
    """Bytes read."""
    held: int = 0
    """Bytes of returned rows, which stay in memory until they are combined."""
    peak_memory: int = 0
    """Peak resident memory of the worker process so far, in bytes."""
    spans: tuple[SpanCount, ...] = ()
    retries: int = 0
    """Repeated calls of the function for failed records, within the task."""
    lanes: float = 0.0
    """Total duration of its calls divided by the number of concurrent calls; 0 if calls are sequential."""
    cpu: float = 0.0
    """CPU seconds of the process during the task, on all threads; it waited for the rest of the time."""
    leading: int = 0
    """Records that failed before the first successful one, up to `LEADING`."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """Values of ``rows_in``, ``rows_out`` and ``failed``, computed together as every chunk needs them."""
        if len(self.spans) == 1:
            return self.spans[0][2:]
        return self.rows_in, self.rows_out, self.failed

    @property
    def rows_in(self) -> int:
        """Records read, including failed ones."""
        return sum(span.rows_in for span in self.spans)

    @property
    def rows_out(self) -> int:
        """Rows returned."""
        return sum(span.rows_out for span in self.spans)

    @property
    def failed(self) -> int:
        """Records in the error table."""
        return sum(span.failed for span in self.spans)


@_COMPACT
class Succeeded(NamedTuple):
    """Outcome of a task that read its whole chunk; individual records may have failed."""

    key: Key
    stats: Stats
    failures: Sequence[Failure] = ()
    payload: Any = None
    """Segments (tables and lists of objects, in order), a `Piece`, or an executor's reference to them."""
    schemas: tuple[Any, ...] = ()
    """Schemas of rows that must fit into one table with other chunks: as returned, and combined."""
    digest: str = ""
    """Hash of the value of a step, if requested."""
    printed: tuple[str, ...] = ()
    """Lines that the task printed."""
    tallies: tuple[Any, ...] = ()
    """Rows from each selected record, as one array per span with selected records; -1: not read."""


@_COMPACT
class Failed(NamedTuple):
    """Outcome of a task without a result."""

    key: Key
    failure: Failure
    records: int | None = None
    """Number of records in the chunk, if known; halving needs it."""
    stats: Stats = Stats()
    died: bool = False
    """Whether the task was aborted, usually with its worker, so that its record count is still unknown."""
    suspect: bool = False
    """Whether the cause may be outside of the task, which then runs alone before a record is blamed."""
    helped: bool = False
    """Whether a retry may help, according to the ``retry=`` of the job."""
    after: float | None = None
    """Seconds before the next attempt, if the function requested a delay."""
    gone: bool = False
    """Whether the node of the task or of its input was lost, so that another node can run it as well."""
    position: Position | None = None
    """Record at which the task was aborted, if known."""
    limit: float | None = None
    """Time limit that the task exceeded, in seconds."""
    unwritten: bool = False
    """Whether writing the rows failed for a reason outside of them: the disk is full or lost."""
    unloadable: bool = False
    """Whether the worker could not load the program of the job, so that no work of the job can succeed there."""
    setup: bool = False
    """Whether the ``setup=`` of the job raised or killed its worker, so that no record was processed."""
    printed: tuple[str, ...] = ()
    """Lines that the task printed."""


Outcome: TypeAlias = Succeeded | Failed

LEADING = 1000
"""Number of leading records that must all fail to stop a job without ``max_errors=``."""
PAYLOAD_LIMIT = 1000
"""Maximum characters of a record in the error table."""
MESSAGE_LIMIT = 2000
"""Maximum characters of a message in the error table, without the hint after it."""
TRACEBACK_LIMIT = 8000
"""Maximum characters of a traceback in the error table: its start and its end."""
TRACEBACKS = 10_000
"""Maximum number of failures of one type raised at one line that keep their traceback."""


class SettledChunk(NamedTuple):
    """Chunk whose processing is final."""

    task: Task
    """Last attempt at the chunk."""
    stats: Stats = Stats()
    failures: Sequence[Failure] = ()
    payload: Any = None
    counted: bool = True
    """Whether ``stats.spans`` hold the record counts of the chunk."""
    before: bool = False
    """Whether an earlier run processed the chunk."""
    schemas: tuple[Any, ...] = ()
    """Schemas of rows in memory that must fit into one table: as returned by the function, and combined."""
    tallies: tuple[Any, ...] = ()
    """Rows from each selected record, as one array per span with selected records; -1: not read."""

    @property
    def key(self) -> Key:
        """Key of the chunk."""
        return self.task.key

    @property
    def chunk(self) -> Chunk:
        """Chunk of the last attempt."""
        return self.task.chunk
