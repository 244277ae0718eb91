"""The frozen values that travel between driver and workers: where data is, what to do, what came out.

Named tuples, since a frozen dataclass takes ten times as long to define and twice as long to pickle.
Their annotations are no text, as `from __future__ import annotations` makes them: each process that
starts would compile every one of them, 1 ms in all.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar, overload

Phase: TypeAlias = Literal["read", "call", "convert", "write", "timeout", "memory", "worker"]
"""Where a record or chunk failed."""

Key: TypeAlias = tuple[int, ...]
"""Place of a chunk in the input: sorts as the input does, halves of a chunk between their neighbours."""

_Kind = TypeVar("_Kind", bound=type)

_TRAVELLERS: list[type] = []


def _traveller(kind: _Kind) -> _Kind:
    """Pickle a class by its number: pickle takes half of its time to look up names of classes."""
    number = len(_TRAVELLERS)
    _TRAVELLERS.append(kind)

    def reduce(self: tuple[Any, ...]) -> tuple[Any, ...]:
        return _made, (number, *self)

    kind.__reduce__ = reduce  # type: ignore[method-assign,assignment]
    return kind


def _made(number: int, *fields: Any) -> Any:
    """Return what was pickled by the number of its class."""
    kind: Any = _TRAVELLERS[number]
    return tuple.__new__(kind, fields)


UNKNOWN_VERSION = "unknown:"
"""Begins the version of records that cannot be compared with others."""


@_traveller
class Input(NamedTuple):
    """One file or object of a source, or the whole of an in-memory source."""

    uri: str
    """Path or URI, as errors and the ledger name it."""
    size: int = 0
    """Bytes of a file; records of an in-memory source."""
    version: str = ""
    """What changes when the content does: modification time in nanoseconds, or etag."""
    compression: str | None = None
    """``"gz"``, ``"bz2"``, ``"zst"``, ``"lz4"``, ``"xz"``; ``None``: plain."""
    place: str = ""
    """Canonical path or URI, if ``uri`` is another spelling of it."""

    @property
    def identity(self) -> str:
        """The one name of the input, whatever spelling or link leads to it."""
        return self.place or self.uri


@_traveller
class Span(NamedTuple):
    """A contiguous range of one input, in the unit of its source (bytes, rows or records)."""

    input: Input
    start: int = 0
    stop: int | None = None
    """``None``: to the end of an input that is not cut."""
    header: Any = None
    """What the driver had to read ahead for the worker, the column names of a CSV file."""
    only: tuple[int, ...] | None = None
    """Numbers of the records to process, in order; the others are read and left out. ``None``: all. A record is
    then known by its index in here: blocks, counts and failures have that for its number."""

    @property
    def whole(self) -> bool:
        """Whether the span covers its input from end to end."""
        return self.start == 0 and self.stop is None


@_traveller
class Chunk(NamedTuple):
    """A contiguous range of a source: the unit of work, retry and resume.

    A chunk is one span, or many whole small inputs. ``skip`` and ``take`` narrow one span further, in
    records, after it was halved: so a compressed file, which cannot be cut, can be halved too.
    """

    spans: tuple[Span, ...]
    weight: int
    """Cost in the unit that sizes are measured in: bytes, or records in memory."""
    skip: int = 0
    take: int | None = None
    of: int | None = None
    """Records of its span, known once the chunk was halved."""

    def cut(self, records: int, places: "Sequence[int]") -> "list[Chunk]":
        """Return a chunk of one span that holds this many records, cut before the records with these numbers."""
        whole = self._replace(of=self.of or records)
        bounds = [0, *places, records]
        return [
            whole._replace(
                weight=max(1, self.weight * (stop - start) // records), skip=self.skip + start, take=stop - start
            )
            for start, stop in pairwise(bounds)
        ]

    def halve(self, records: int) -> "tuple[Chunk, Chunk]":
        """Return the two halves of a chunk of one span that holds this many records, at least two."""
        one, two = self.cut(records, [records // 2])
        return one, two


@_traveller
class Task(NamedTuple):
    """One attempt at one chunk."""

    key: Key
    chunk: Chunk
    attempt: int = 1
    data: Any = None
    """Records of an in-memory source, shipped with the task."""
    schema: Any = None
    """A `pyarrow.Schema` that the rows must go with; known only where a chunk is done once more for it."""
    isolates: bool = False
    """It is part of a chunk that broke off, or failed as a whole."""
    alone: bool = False
    """Nothing else runs beside it, so that whatever happens is its own doing."""
    blind: bool = False
    """It is part of a chunk that nobody could count, so that nobody need try to count it."""


@_traveller
class Position(NamedTuple):
    """Records of a chunk among which the function was when its task broke off."""

    span: int
    """Place of their span among those of the chunk."""
    first: int
    """Number of the first one within the span, from 0."""
    records: int = 1
    seconds: float = 0.0
    """Since the function was called for the first one."""


@_traveller
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


@_traveller
class SpanCount(NamedTuple):
    """What became of the records of one span."""

    uri: str
    positions: int = 0
    """Numbers used up, blank lines included; what the next span of the input counts on from."""
    rows_in: int = 0
    rows_out: int = 0
    failed: int = 0


@_traveller
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


@_traveller
class Piece(NamedTuple):
    """The rows of one chunk on disk, not yet part of the output."""

    path: str
    rows: int
    nbytes: int
    """Size on disk."""
    schema: Any
    """Its `pyarrow.Schema`."""
    digest: str = ""
    """Of its bytes."""

    @property
    def name(self) -> str:
        """Of its file, without the folder."""
        return self.path.rpartition("/")[2]


@_traveller
class Slice(NamedTuple):
    """Some rows of a finished part, on their way into the part that takes its place."""

    path: str
    start: int = 0
    stop: int | None = None
    """``None``: to its end."""
    of_piece: bool = False
    """The rows are those of a piece, whose format may be another one than that of parts."""

    @property
    def whole(self) -> bool:
        """Whether these are all rows of the part."""
        return self.start == 0 and self.stop is None


class Assemble(NamedTuple):
    """Work for a worker: pieces, and what finished parts hold, in order, into one part."""

    key: Key
    pieces: tuple[Piece | Slice, ...]
    schema: Any
    path: str
    """Temporary name; the driver gives the part its final one."""
    format: str = "parquet"
    """Its name: all that a worker must know of the job, so that it needs no function that may be broken."""
    seconds: float | None = None
    """What it may take, so that a disk that hangs does not hold the job for ever."""


class Inspect(NamedTuple):
    """Work for a worker: count the records of a chunk that killed its worker, without calling the function."""

    task: Task

    @property
    def key(self) -> Key:
        """Key of the chunk."""
        return self.task.key


class Merge(NamedTuple):
    """Work for a worker: neighbouring results into a smaller one, by the function of ``combine=``."""

    key: Key
    parts: tuple[Any, ...]
    """Payloads, or an executor's references to them."""


class Partial(NamedTuple):
    """What a step gets of steps that may have failed, if it asked for that with `Flow.allow_failed`."""

    value: Any
    """Of one step, ``None`` if it failed; of a list of steps those values that there are, in order."""
    errors: Any
    """A `pyarrow.Table`: the rows of the error table that are of these steps."""
    succeeded: int
    """Steps; of a step that is a whole job its records."""
    failed: int


class Skipped(NamedTuple):
    """What comes of a call that its ``when=`` did not want."""


class Unbegun(NamedTuple):
    """What comes of a call that was sent ahead, and did not begin."""


class Grown(NamedTuple):
    """What a step gave that returned more steps to run."""

    value: Any
    """Packed."""


class Slot(NamedTuple):
    """What goes into a place that the arguments of a step left for what other steps gave."""

    values: tuple[int | None, ...]
    """Where each step's value stands among those of the call; ``None``: it has none."""
    tolerant: tuple[Any, int, int] | None = None
    """For who asked for failures too: the error table, and how many succeeded and failed."""
    single: bool = True
    """One value, not a list of them."""


class Given(NamedTuple):
    """What a step gave: one packed value, or the rows of each chunk of a job."""

    payloads: tuple[Any, ...] = ()
    """Or an executor's references to them."""
    rows: bool = False
    earlier: Key | None = None
    """It is still to come: of the call with this key, which the same worker does before the one that takes it."""


class Call(NamedTuple):
    """One attempt at one step of a flow."""

    key: Key
    fn: Any
    """As it is shipped."""
    arguments: Any
    """Positional and keyword ones, packed, with places."""
    values: tuple[Given, ...] = ()
    places: tuple[Slot, ...] = ()
    when: Any = None
    """Number of the place whose value says whether to call, or a function of the arguments that does."""
    seconds: float | None = None
    """What it may take,"""
    memory: int | None = None
    """and in bytes."""
    retry: Any = None
    """Policy of the step, which says whether another try may help."""
    keep: Any = None
    """Place on disk that the value is kept in."""
    digests: bool = False
    """Whether to tell the digits of the value."""


@_traveller
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


@_traveller
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
Work: TypeAlias = Task | Assemble | Merge | Inspect | Call

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
