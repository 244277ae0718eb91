"""Work items: what a worker is asked to do."""

from typing import Any, NamedTuple, TypeAlias

from batchflow.core.chunks import Chunk, Key, Piece, Slice
from batchflow.core.compact_pickle import CompactPickle


def _rebuild(number: int, *fields: Any) -> Any:
    """Return the object that was pickled by the number of its class."""
    return tuple.__new__(_COMPACT.classes[number], fields)


_COMPACT = CompactPickle(_rebuild)


@_COMPACT
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


class AssemblePart(NamedTuple):
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


class CountRecords(NamedTuple):
    """Work for a worker: count the records of a chunk that killed its worker, without calling the function."""

    task: Task

    @property
    def key(self) -> Key:
        """Key of the chunk."""
        return self.task.key


class CombineTables(NamedTuple):
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


class NotStarted(NamedTuple):
    """What comes of a call that was sent ahead, and did not begin."""


class ReturnedSteps(NamedTuple):
    """What a step gave that returned more steps to run."""

    value: Any
    """Packed."""


class ArgumentSlot(NamedTuple):
    """What goes into a place that the arguments of a step left for what other steps gave."""

    values: tuple[int | None, ...]
    """Where each step's value stands among those of the call; ``None``: it has none."""
    tolerant: tuple[Any, int, int] | None = None
    """For who asked for failures too: the error table, and how many succeeded and failed."""
    single: bool = True
    """One value, not a list of them."""


class StepValue(NamedTuple):
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
    values: tuple[StepValue, ...] = ()
    places: tuple[ArgumentSlot, ...] = ()
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


WorkItem: TypeAlias = Task | AssemblePart | CombineTables | CountRecords | Call
