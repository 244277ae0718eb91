"""What every source offers: inputs to plan with, chunks cut on the driver, blocks read on a worker."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from batchflow.coverage import NOTHING, Coverage, Range
from batchflow.errors import InputError
from batchflow.model import PAYLOAD_LIMIT, Chunk, Failure, Input, Key, Span
from batchflow.tables import is_tabular, table_to_rows, values_to_table

if TYPE_CHECKING:
    import pyarrow as pa

    from batchflow.sources.cutting import Cuts

BLOCK_BYTES = 256_000
"""Bytes of text decoded at a time: Python objects of one block stay in the processor's cache and out
of the garbage collector's way (1 MB blocks took 1.2 times as long, 16 MB blocks 2 to 4 times)."""


class Drawn(NamedTuple):
    """A chunk as the driver draws it from a source."""

    key: Key
    chunk: Chunk
    data: Any = None
    """Records of an in-memory source, which travel with the task."""


class Cursor(ABC):
    """The place on the driver up to which a source has been cut into chunks."""

    total: int | None
    """Weight of the whole source (bytes or records); ``None`` where only the end will tell."""

    @abstractmethod
    def draw(self, weight: int) -> Drawn | None:
        """Cut and return the next chunk of about this weight; ``None`` at the end."""

    @property
    @abstractmethod
    def frontier(self) -> Key:
        """Key below which every chunk has been drawn."""


@dataclass(slots=True)
class Block:
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

    def record(self, at: int) -> Any:
        """Return one of the records."""
        return table_to_rows(self.rows.slice(at, 1))[0] if is_tabular(self.rows) else self.rows[at]


@dataclass(frozen=True)
class Source(ABC):
    """An input: cut on the driver, read on the workers."""

    kind: ClassVar[str]
    in_memory: ClassVar[bool] = False

    @abstractmethod
    def inputs(self) -> list[Input]:
        """List the inputs.

        Raises
        ------
        InputError
            If nothing matches.
        """

    @abstractmethod
    def cursor(self, inputs: Sequence[Input], heavy: int | None, done: Coverage = NOTHING) -> Cursor:
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

    def prepared(self, inputs: Sequence[Input]) -> Source:
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

    def identified(self, inputs: Sequence[Input]) -> list[Input]:
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
    def select(self, chunk: Chunk, failure: Failure, before: int) -> Chunk:
        """Return a chunk of what a failure in another one is about: its record, or the rest of its span.

        Parameters
        ----------
        failure
            With the number of its record within the span.
        before
            Numbers used up by the spans of the chunk before that one.
        """

    def described(self, uri: str) -> Input | None:
        """Return an input as it is now, ``None`` if it is gone."""
        del uri
        return None

    def extent(self, item: Input) -> int | None:
        """Return the units of an input, bytes or rows or records, ``None`` where nobody can tell."""
        return item.size

    def shipped(self) -> Source:
        """Return the source as the workers need it."""
        return self

    def table(self, rows: Sequence[Any]) -> pa.Table:
        """Return records as the table that a batch function gets."""
        return values_to_table(rows)

    def cuttable(self, item: Input) -> bool:
        """Whether an input can be cut into several chunks."""
        return item.compression is None

    def halve(self, chunk: Chunk, data: Any, records: int) -> tuple[tuple[Chunk, Any], tuple[Chunk, Any]]:
        """Return the two halves of a chunk of at least two records, each with the data that travels with it."""
        one, two = chunk.halve(records)
        return (one, data), (two, data)

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
        return [Chunk(spans, weight) for spans in halves] if middle else ()

    def record_weight(self, inputs: Sequence[Input]) -> float:
        """Return the usual weight of a record, by which a number of records becomes the size of a chunk."""
        del inputs
        return 1.0

    def read(self, chunk: Chunk, data: Any = None) -> Iterator[Block]:
        """Read a chunk; what cannot be read becomes a failure of its span, and the other spans go on."""
        return narrow(self._read_spans(chunk, data), chunk)

    def _read_spans(self, chunk: Chunk, data: Any) -> Iterator[Block]:
        for span in chunk.spans:
            end = 0
            try:
                for block in self.blocks(span, data):
                    end = block.end
                    yield block
            except MemoryError:
                raise  # of the task as a whole
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a reader meets is an answer, not a crash
                yield broken(span, end, error)


def broken(span: Span, end: int, error: Exception | SystemExit) -> Block:
    """Return a block for what could not be read of a span, after ``end`` numbers that could."""
    start = getattr(error, "position", span.start)
    failure = Failure(
        span.input.uri, start, span.stop, end, None, "read", type(error).__name__, explain(error)
    )
    # A damage takes up a number, so that a halved chunk counts it like a record.
    return Block(span, [], [], end + 1, lambda _: (start, span.stop), [failure], 0, error)


def is_rest(failure: Failure) -> bool:
    """Whether a failure is about all of its span from a record on, as `broken` has it."""
    return failure.phase == "read" and failure.payload is None


def explain(error: BaseException) -> str:
    """Return the message of an exception, never empty."""
    return _told(str, error) or type(error).__name__


def show(record: Any) -> str:
    """Return a record as text for the error table, cut at `PAYLOAD_LIMIT` characters."""
    if isinstance(record, bytes):
        text = record[: 4 * PAYLOAD_LIMIT].decode("utf-8", "backslashreplace")
    else:
        text = record if isinstance(record, str) else _told(repr, record)
    return text if len(text) <= PAYLOAD_LIMIT else text[: PAYLOAD_LIMIT - 1] + "…"


def _told(tell: Callable[[Any], str], value: Any) -> str:
    """Return what a user's object says of itself, which may raise too."""
    try:
        return tell(value)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - telling of a failure must not fail, nor end the driver
        return f"<{type(value).__name__} whose {tell.__name__}() raised {type(error).__name__}>"


def narrow(blocks: Iterator[Block], chunk: Chunk) -> Iterator[Block]:
    """Keep the records of a halved chunk, counting numbers anew from the first one kept of each span."""
    if chunk.skip == 0 and chunk.take is None:
        yield from blocks
        return
    window = _Window(chunk.skip, sys.maxsize if chunk.take is None else chunk.skip + chunk.take)
    for block in blocks:
        yield window.keep(block)
        if window.passed:
            return


@dataclass(slots=True)
class _Window:
    """Numbers ``first`` to ``last`` of a chunk, counted through all of its spans."""

    first: int
    last: int
    span: Span | None = None
    base: int = 0
    """Numbers used up by the spans before."""
    used: int = 0
    """Numbers used up in this span."""

    @property
    def passed(self) -> bool:
        """Whether all numbers of the window have been seen."""
        return self.base + self.used >= self.last

    def keep(self, block: Block) -> Block:
        """Return the part of a block inside the window."""
        if block.span is not self.span:
            self.base, self.span = self.base + self.used, block.span
        self.used = block.end
        low, high = max(0, self.first - self.base), min(block.end, self.last - self.base)
        kept = [at for at, number in enumerate(block.numbers) if low <= number < high]
        begin, stop = (kept[0], kept[-1] + 1) if kept else (0, 0)
        return Block(
            block.span,
            block.rows[begin:stop],
            [number - low for number in block.numbers[begin:stop]],
            max(0, high - low),
            lambda number: block.locate(number + low),
            [_moved(bad, low) for bad in block.failures if low <= (bad.record or 0) < high],
            block.nbytes,
            block.error,
        )


def _moved(failure: Failure, low: int) -> Failure:
    return failure._replace(record=(failure.record or 0) - low)


@dataclass(frozen=True)
class FileSource(Source):
    """A source made of files: paths, folders, globs or URIs."""

    paths: tuple[str, ...] = dataclass_field(default=())

    def inputs(self) -> list[Input]:
        """List the files that the paths stand for, in order, each once."""
        from batchflow.sources.paths import expand

        return expand(self.paths)

    def described(self, uri: str) -> Input | None:
        """Return a file as it is now, ``None`` if it is gone."""
        from batchflow.sources.paths import expand

        try:
            return expand((uri,))[0]
        except InputError:
            return None

    def cursor(self, inputs: Sequence[Input], heavy: int | None, done: Coverage = NOTHING) -> Cursor:
        """Return a cursor that cuts big files and packs small ones."""
        from batchflow.sources.cutting import FileCursor

        return FileCursor(self, inputs, heavy, done)

    def select(self, chunk: Chunk, failure: Failure, before: int) -> Chunk:
        """Return a chunk of one record, by its place where the file was cut there, else by its number."""
        number = failure.record or 0
        rest = is_rest(failure)
        if chunk.of is not None:
            taken = (chunk.take or 0) - before - number if rest else 1
            return chunk._replace(weight=1, skip=chunk.skip + before + number, take=taken)
        span = next(span for span in chunk.spans if span.input.uri == failure.source)
        if span.whole or rest or failure.start is None or failure.stop is None:
            return Chunk((span,), 1, number, None if rest else 1)
        return Chunk((span._replace(start=failure.start, stop=failure.stop),), 1)

    def parts(self, chunk: Chunk) -> Sequence[Chunk]:
        """Return two parts of a chunk: some of its files, or of its one file what is before and behind a cut."""
        if len(chunk.spans) > 1:
            return super().parts(chunk)
        from batchflow.sources.cutting import halves

        return halves(self, chunk)

    def record_weight(self, inputs: Sequence[Input]) -> float:
        """Return the mean weight of the records in the first block of the first file that has any."""
        from batchflow.sources.cutting import weigh
        from batchflow.sources.lines import LOOK_BYTES, LookError, looking

        for item in inputs:
            try:
                with looking():
                    block = next(iter(self.blocks(Span(item), None)))
            except LookError:
                return min(weigh(item), LOOK_BYTES)  # records are at least as large
            except Exception:  # noqa: BLE001 - the worker that reads the file tells what is wrong with it
                continue
            if block.end and block.nbytes:
                return min(weigh(item), block.nbytes) / block.end
        return 1.0

    def holds_one(self, span: Span) -> bool:
        """Whether a record begins in a span that cannot be cut any more."""
        del span
        return True

    def cuts(self, item: Input, gap: Range = (0, None)) -> Cuts:
        """Return a function that cuts span after span off a range of an input that is worth cutting."""
        from batchflow.sources.cutting import ByteCuts

        return ByteCuts(item, gap).cut
