"""What every source offers: inputs to plan with, chunks cut on the driver, blocks read on a worker."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from batchflow.core.chunks import Chunk, InputFile, Key, Span
from batchflow.core.coverage import NOTHING, Coverage
from batchflow.core.outcomes import MESSAGE_LIMIT, PAYLOAD_LIMIT, Failure
from batchflow.io.arrow.convert import is_tabular, row_as_text, values_to_table
from batchflow.io.sources.record_window import restrict_to_window, select

if TYPE_CHECKING:
    import pyarrow as pa

    from batchflow.io.stores import Place

BLOCK_BYTES = 256_000
"""Bytes of text read at a time."""
DECODED_BYTES = 32_000
"""Bytes of text decoded at a time: the records of a block stay in the processor's cache until the function has
seen them, and the next ones take their place in memory (256 kB took 1.16 times as long for a whole job)."""


class KeyedChunk(NamedTuple):
    """A chunk as the driver draws it from a source."""

    key: Key
    chunk: Chunk
    data: Any = None
    """Records of an in-memory source, which travel with the task."""


class Listing(NamedTuple):
    """The inputs of a source."""

    inputs: list[InputFile]
    left_out: tuple[str, ...] = ()
    """Outputs of other jobs among them, which are not read."""


class ChunkCursor(ABC):
    """The place on the driver up to which a source has been cut into chunks."""

    total: int | None
    """Weight of the whole source (bytes or records); ``None`` where only the end will tell."""

    @abstractmethod
    def draw(self, weight: int) -> KeyedChunk | None:
        """Cut and return the next chunk of about this weight; ``None`` at the end."""

    @property
    @abstractmethod
    def frontier(self) -> Key:
        """Key below which every chunk has been drawn."""


class ReleasableRecords(Sequence[Any]):
    """Records made of texts, held until they are let go of; then each is made again for who asks.

    Parameters
    ----------
    texts
        One for each record.
    decode
        Makes a record of a text; what it raises is raised.
    made
        The records, if they were made already.
    """

    __slots__ = ("_decode", "_made", "_texts")

    def __init__(
        self, texts: Sequence[bytes], decode: Callable[[bytes], Any], made: list[Any] | None = None
    ) -> None:
        self._texts = texts
        self._decode = decode
        self._made: list[Any] | None = list(map(decode, texts)) if made is None else made

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[Any]:
        return map(self._decode, self._texts) if self._made is None else iter(self._made)

    def __getitem__(self, at: Any) -> Any:
        if self._made is not None:
            return self._made[at]
        texts = self._texts[at]
        return list(map(self._decode, texts)) if isinstance(at, slice) else self._decode(texts)

    def pick(self, places: Sequence[int]) -> ReleasableRecords:
        """Return some of the records."""
        return ReleasableRecords([self._texts[at] for at in places], self._decode, [self[at] for at in places])

    def let_go(self) -> None:
        """Forget the records."""
        self._made = None


class Block(NamedTuple):
    """Some neighbouring records of one span, decoded; numbers count from 0 at the start of the span."""

    span: Span
    rows: Any
    """The records as a sequence, or a `pyarrow.Table` with a row for each."""
    numbers: Sequence[int]
    """Number of each record within the span."""
    end: int
    """Numbers used up so far, blank lines and failed records included."""
    locate: Callable[[int], tuple[int, int | None]]
    """Number of a record to the range it takes up in the input."""
    failures: Sequence[Failure] = ()
    """What could not be read; ``record`` holds the number within the span."""
    nbytes: int = 0
    error: Exception | SystemExit | None = None
    """Why the span broke off here."""

    def let_go(self) -> None:
        """Forget the records that can be made again: nobody but who tells of failures asks for them any more."""
        if isinstance(self.rows, ReleasableRecords):
            self.rows.let_go()

    def record(self, at: int) -> Any:
        """Return one of the records."""
        return row_as_text(self.rows, at) if is_tabular(self.rows) else self.rows[at]


class Source(ABC):
    """An input: cut on the driver, read on the workers."""

    kind: ClassVar[str]
    in_memory: ClassVar[bool] = False

    def listed(self, output: Place | None) -> Listing:
        """List the inputs without those that are in an output.

        Raises
        ------
        InputError
            If nothing matches.
        DestinationError
            If the output is what is read.
        """
        del output
        return Listing(self.inputs())

    @abstractmethod
    def inputs(self) -> list[InputFile]:
        """List the inputs.

        Raises
        ------
        InputError
            If nothing matches.
        """

    @abstractmethod
    def cursor(self, inputs: Sequence[InputFile], heavy: int | None, done: Coverage = NOTHING) -> ChunkCursor:
        """Return a cursor at the start.

        Parameters
        ----------
        heavy
            Inputs that cannot be cut and weigh more come first.
        done
            What is not to be drawn.
        """

    @abstractmethod
    def blocks(self, span: Span, data: Any) -> Iterator[Block]:
        """Read one span; runs on a worker, and may raise anything."""

    def fine_blocks(self, span: Span, data: Any) -> Iterator[Block]:
        """Read the same in smaller blocks, where that pays: for who is done with a record at once."""
        return self.blocks(span, data)

    def doubtful(self) -> tuple[str, ...]:
        """Return what of the input, once it is prepared, may be read in another way than is meant."""
        return ()

    def summary(self) -> list[tuple[str, str]]:
        """Return how the input is read, as names and values: what was named, and what was inferred from what."""
        return []

    def for_batches(self) -> Source:
        """Return the source for functions of batches."""
        return self

    def prepared(self, inputs: Sequence[InputFile]) -> Source:
        """Return the source with what the driver had to find out for all chunks alike."""
        del inputs
        return self

    def options(self) -> dict[str, Any]:
        """Return what the user said of the source, as plain values."""
        return {"kind": self.kind}

    def learned(self) -> dict[str, Any]:
        """Return what `prepared` found out, as plain values, so that a later run need not find out otherwise."""
        return {}

    def relearned(self, learned: dict[str, Any]) -> Source:
        """Return the source with what an earlier run found out."""
        del learned
        return self

    def identified(self, inputs: Sequence[InputFile]) -> list[InputFile]:
        """Return the inputs with versions by which a later run knows whether they changed."""
        return list(inputs)

    def count(self, data: Any) -> int | None:
        """Return the number of records that travel with a task, ``None`` where only reading tells."""
        del data
        return None

    def records_of(self, chunk: Chunk) -> Any:
        """Return the records of a chunk that travel with its task, where they do."""
        del chunk

    @abstractmethod
    def select(self, chunk: Chunk, failure: Failure) -> Chunk:
        """Return a chunk of what a failure in another one is about: its record, or the rest of its span.

        Parameters
        ----------
        failure
            With the number of its record within the span.
        """

    def selection(self, chunk: Chunk, failures: Sequence[Failure]) -> Chunk:
        """Return a chunk of the records that some failures in another one are about, to be read in one go.

        Parameters
        ----------
        failures
            In input order, with the numbers of their records within their spans.
        """
        numbers: dict[str, list[int]] = {}
        for failure in failures:
            numbers.setdefault(failure.source, []).append((failure.record or 0) + chunk.skip)
        spans = [
            span._replace(only=tuple(numbers[span.input.uri])) for span in chunk.spans if span.input.uri in numbers
        ]
        return Chunk(tuple(spans), len(failures))

    def described(self, uri: str) -> InputFile | None:
        """Return an input as it is now, ``None`` if it is gone."""
        del uri
        return None

    def extent(self, item: InputFile) -> int | None:
        """Return the units of an input, bytes or rows or records, ``None`` where nobody can tell."""
        return item.size

    def needs(self, span: Span) -> list[tuple[int, int]]:
        """Return the ranges of bytes of a file that reading a span of it takes, where it is on another machine."""
        del span
        return []

    def shipped(self) -> Source:
        """Return the source as the workers need it."""
        return self

    def table(self, rows: Sequence[Any]) -> pa.Table:
        """Return records as the table that a batch function gets."""
        return values_to_table(rows)

    def cuttable(self, item: InputFile) -> bool:
        """Whether an input can be cut into several chunks."""
        return item.compression is None

    def halve(self, chunk: Chunk, data: Any, records: int) -> tuple[tuple[Chunk, Any], tuple[Chunk, Any]]:
        """Return the two halves of a chunk of at least two records, each with the data that travels with it.

        Of several files each half gets some, so that what becomes of one, between two readings, moves no other's.
        """
        one, two = Source.parts(self, chunk) or chunk.halve(records)
        return (one, data), (two, data)

    def cut(self, chunk: Chunk, data: Any, places: Sequence[int], records: int) -> list[tuple[Chunk, Any]]:
        """Return a chunk of one span cut before some of its records, each part with its data."""
        return [(part, data) for part in chunk.cut(records, places)]

    def parts(self, chunk: Chunk) -> Sequence[Chunk]:
        """Return a chunk whose records nobody could count in two: some of its files, or parts of its one.

        Returns
        -------
        Sequence
            The chunk itself where it holds but one record, nothing where nobody can tell.
        """
        middle = len(chunk.spans) // 2
        weight = max(1, chunk.weight // 2)
        halves = (chunk.spans[:middle], chunk.spans[middle:])
        return [Chunk(spans, weight) for spans in halves] if middle else _selected_halves(chunk)

    def counted(self, records: int) -> Source:
        """Return the source for chunks of so many records; most have to go by their mean weight."""
        del records
        return self

    def record_weight(self, inputs: Sequence[InputFile]) -> float:
        """Return the usual weight of a record, by which a number of records becomes the size of a chunk."""
        del inputs
        return 1.0

    def read(self, chunk: Chunk, data: Any = None, *, fine: bool = False) -> Iterator[Block]:
        """Read a chunk; what cannot be read becomes a failure of its span, and the other spans go on.

        Parameters
        ----------
        fine
            Whether in smaller blocks, where that pays.
        """
        return restrict_to_window(self._read_spans(chunk, data, self.fine_blocks if fine else self.blocks), chunk)

    def _read_spans(
        self, chunk: Chunk, data: Any, blocks: Callable[[Span, Any], Iterator[Block]]
    ) -> Iterator[Block]:
        for span in chunk.spans:
            end = 0
            try:
                for block in self._selected(span, blocks(span, data)):
                    end = block.end
                    yield block
            except MemoryError:
                raise  # of the task as a whole
            except (Exception, SystemExit) as error:
                yield broken(span, end, error)

    def _selected(self, span: Span, blocks: Iterator[Block]) -> Iterator[Block]:
        """Yield blocks with the selected records of a span only, and read no further than the last of them."""
        only = span.only
        if only is None or self.in_memory:
            yield from blocks
            return
        done = 0
        try:
            for block in blocks:
                kept = select(block, only, done)
                done = block.end
                if kept is not None:
                    yield kept
                if done > only[-1]:
                    return
        except MemoryError:
            raise
        except (Exception, SystemExit) as error:
            kept = select(broken(span, done, error), only, done)
            if kept is not None:
                yield kept


def broken(span: Span, end: int, error: Exception | SystemExit) -> Block:
    """Return a block for what could not be read of a span, after ``end`` numbers that could."""
    start = getattr(error, "position", span.start)
    failure = Failure(span.input.uri, start, span.stop, end, None, "read", type(error).__name__, explain(error))
    # A damage takes up a number, so that a halved chunk counts it like a record.
    return Block(span, [], [], end + 1, lambda _: (start, span.stop), [failure], 0, error)


def _selected_halves(chunk: Chunk) -> Sequence[Chunk]:
    """Return the two halves of a chunk of selected records, nothing if all of its span is to be processed."""
    (span,) = chunk.spans
    if span.only is None:
        return ()
    if len(span.only) == 1:
        return [chunk]
    middle = len(span.only) // 2
    weight = max(1, chunk.weight // 2)
    return [Chunk((span._replace(only=part),), weight) for part in (span.only[:middle], span.only[middle:])]


def is_rest(failure: Failure) -> bool:
    """Whether a failure is about all of its span from a record on, as `broken` has it."""
    return failure.phase == "read" and failure.payload is None


def explain(error: BaseException) -> str:
    """Return the message of an exception, never empty, at most `MESSAGE_LIMIT` characters."""
    return cut(tell(str, error), MESSAGE_LIMIT) or type(error).__name__


def show(record: Any) -> str:
    """Return a record as text for the error table, cut at `PAYLOAD_LIMIT` characters."""
    if isinstance(record, bytes):
        text = record[: 4 * PAYLOAD_LIMIT].decode("utf-8", "backslashreplace")
    else:
        text = record if isinstance(record, str) else tell(repr, record)
    return cut(text, PAYLOAD_LIMIT)


def cut(text: str, limit: int) -> str:
    """Return the start of a text that is longer than a limit."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def tell(describe: Callable[[Any], str], value: Any) -> str:
    """Return the `str` or `repr` of a user's object, which may raise."""
    try:
        return describe(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"<{type(value).__name__} whose {describe.__name__}() raised {type(error).__name__}>"
