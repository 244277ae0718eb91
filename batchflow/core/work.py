"""Work items that workers perform."""

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
    """Records of an in-memory source, sent with the task."""
    schema: Any = None
    """Schema that the rows must match, a `pyarrow.Schema`; set only if a chunk is reprocessed for it."""
    isolates: bool = False
    """Whether the task is part of a chunk that was aborted or failed as a whole."""
    alone: bool = False
    """Whether nothing else runs beside the task, so that it alone is responsible for its effects."""
    blind: bool = False
    """Whether the task is part of a chunk whose records could not be counted, so that counting is skipped."""


class AssemblePart(NamedTuple):
    """Assembly of pieces and slices of finished parts, in order, into one part."""

    key: Key
    pieces: tuple[Piece | Slice, ...]
    schema: Any
    path: str
    """Temporary path; the driver renames the part."""
    format: str = "parquet"
    """Name of the output format. The worker needs no program of the job, which may be broken."""
    seconds: float | None = None
    """Time limit in seconds, so that a hanging disk does not block the job forever."""


class CountRecords(NamedTuple):
    """Count of the records in a chunk that killed its worker, without calling the function."""

    task: Task

    @property
    def key(self) -> Key:
        """Key of the chunk."""
        return self.task.key


class CombineTables(NamedTuple):
    """Combination of neighbouring results into a smaller one by the function of ``combine=``."""

    key: Key
    parts: tuple[Any, ...]
    """Payloads, or an executor's references to them."""


class Partial(NamedTuple):
    """Input of a step from steps that may have failed, if it was requested with `Flow.allow_failed`."""

    value: Any
    """Value of one step, ``None`` if it failed; for a list of steps, the available values in order."""
    errors: Any
    """Rows of the error table for these steps, as a `pyarrow.Table`."""
    succeeded: int
    """Number of successful steps; for a step that is a whole job, of its records."""
    failed: int


class Skipped(NamedTuple):
    """Result of a call that its ``when=`` skipped."""


class NotStarted(NamedTuple):
    """Result of a pipelined call that did not start."""


class ReturnedSteps(NamedTuple):
    """Result of a step that returned more steps to run."""

    value: Any
    """Pickled steps."""


class ArgumentSlot(NamedTuple):
    """Placeholder in the arguments of a step for the values of other steps."""

    values: tuple[int | None, ...]
    """Index of each step's value among the values of the call; ``None``: it has none."""
    tolerant: tuple[Any, int, int] | None = None
    """Error table and counts of successes and failures, if failures were requested too."""
    single: bool = True
    """Whether the slot takes one value instead of a list."""


class StepValue(NamedTuple):
    """Value of a step: one pickled value, or the rows of each chunk of a job."""

    payloads: tuple[Any, ...] = ()
    """Pickled values or rows, or an executor's references to them."""
    rows: bool = False
    earlier: Key | None = None
    """Key of an earlier call on the same worker that will produce the value."""


class Call(NamedTuple):
    """One attempt at one step of a flow."""

    key: Key
    fn: Any
    """Pickled function."""
    arguments: Any
    """Pickled positional and keyword arguments, with slots for values of steps."""
    values: tuple[StepValue, ...] = ()
    places: tuple[ArgumentSlot, ...] = ()
    when: Any = None
    """Index of the slot whose value decides whether to call, or a function of the arguments that decides."""
    seconds: float | None = None
    """Time limit in seconds."""
    memory: int | None = None
    """Memory limit in bytes."""
    retry: Any = None
    """Retry policy of the step."""
    keep: Any = None
    """Cache entry on disk for the value."""
    digests: bool = False
    """Whether to report the hash of the value."""


WorkItem: TypeAlias = Task | AssemblePart | CombineTables | CountRecords | Call
