"""CSV files, read as Python's `csv` module reads them, wherever they are cut."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from batchflow.core.chunks import InputFile, Span
from batchflow.core.coverage import Range
from batchflow.core.text import counted, did_you_mean
from batchflow.errors import FormatError
from batchflow.io.sources.base import BLOCK_BYTES, Block, Source
from batchflow.io.sources.csv_reader import OPEN_CURE, RowOffsets, RowReader, is_decoded
from batchflow.io.sources.csv_splits import CsvSplitter
from batchflow.io.sources.csv_types import (
    SAMPLE_FILES,
    SAMPLE_RECORDS,
    SHOWN_TYPES,
    CellType,
    infer,
    odd_cell,
    spread,
)
from batchflow.io.sources.file_source import FileSource
from batchflow.io.sources.line_reader import bounded_reads, count_lines
from batchflow.io.sources.splitter import Cuts, uncut
from batchflow.io.sources.text import cure_of_encoding, unreadable
from batchflow.io.sources.text_encoding import UTF8, is_ascii_based

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class CsvSource(FileSource):
    """CSV files, each with its own header; a record is a dict from column to cell."""

    kind: ClassVar[str] = "csv"
    delimiter: str = ","
    quote: str | None = '"'
    columns: tuple[str, ...] | None = None
    """Names of the columns of files without a header."""
    types: Mapping[str, CellType] | None = None
    """Types of columns; `prepared` infers those of the others. None at all: every column is text."""
    encoding: str = UTF8
    inferred: frozenset[str] | None = field(default=None, compare=False, repr=False)
    """Columns whose types `prepared` found out."""
    sampled: int = field(default=0, compare=False, repr=False)
    """Files whose first records these types come from."""
    doubts: tuple[str, ...] = field(default=(), compare=False, repr=False)
    """What `prepared` has found."""

    def prepared(self, inputs: Sequence[InputFile]) -> Source:
        """Return the source with types inferred from the first 1,000 records of five files, if none is named.

        The files are chosen by their names alone, so that types do not depend on their order.

        Raises
        ------
        FormatError
            If a type is named for a column that none of them has.
        """
        named = self.types or {}
        if self.types is not None and not named:
            return self
        cells: dict[str, list[str]] = {}
        sampled = 0
        for item in spread(inputs):
            if sampled == SAMPLE_FILES:
                break
            rows = self._sample(item)
            sampled += bool(rows)
            for row in rows:
                for name, cell in row.items():
                    cells.setdefault(name, []).append(cell)
        if cells:
            self._check_columns(inputs, [name for name in named if name not in cells], list(cells))
        inferred = {name: infer(column) for name, column in cells.items() if name not in named}
        texts = [name for name, kind in inferred.items() if kind is CellType.TEXT]
        doubts = (*_delimited(list(cells)), *(line for name in texts for line in _mistyped(name, cells[name])))
        types = {name: inferred.get(name) or named[name] for name in [*cells, *(named.keys() - cells.keys())]}
        return replace(self, types=types, inferred=frozenset(inferred), sampled=sampled, doubts=doubts)

    def summary(self) -> list[tuple[str, str]]:
        """Return how the files are read, and the types of the columns."""
        dialect = f"delimiter {self.delimiter!r}, quote {self.quote!r}, encoding {self.encoding}"
        header = (
            "a header in each file" if self.columns is None else f"columns= names {len(self.columns)}, no header"
        )
        lines = [("format", f"{dialect}, {header}")]
        if not self.types:
            return [*lines, ("types", "every cell is text")] if self.types is not None else lines
        return [*lines, ("types", self._told_types())]

    def _told_types(self) -> str:
        types = list((self.types or {}).items())
        shown = ", ".join(f"{name}: {kind.value}" for name, kind in types[:SHOWN_TYPES])
        more = f" and {len(types) - SHOWN_TYPES} more" if len(types) > SHOWN_TYPES else ""
        named = len(types) - len(self.inferred or ())
        if self.inferred is None or not self.inferred:
            return f"{shown}{more}, as named"
        files = counted(self.sampled, "file")
        origin = f"from the first {SAMPLE_RECORDS:,} rows of {files}" if self.sampled else "from an earlier run"
        return f"{shown}{more}, {origin}{f' ({named} named)' if named else ''}"

    def doubtful(self) -> tuple[str, ...]:
        """Return which columns may not be what they look like."""
        return self.doubts

    def _check_columns(self, inputs: Sequence[InputFile], missing: Sequence[str], columns: Sequence[str]) -> None:
        """Refuse a type for a column that no file has, be it one behind those that types are inferred from."""
        for name in missing:
            if not any(name in row for item in spread(inputs) for row in self._sample(item)[:1]):
                there = f"the columns are {', '.join(columns)}{did_you_mean(name, columns)}"
                message = f"types= names a column {name!r}, which {inputs[0].uri!r} has not: {there}"
                raise FormatError(message)

    def _sample(self, item: InputFile) -> list[dict[str, str]]:
        try:
            with bounded_reads(), closing(RowReader(self.dialect(), Span(item), self.encoding)) as reader:
                names = self._names(reader)
                rows, _ = next(reader.batches(), ([], None))
        except (OSError, ValueError):
            return []  # the worker that reads the file tells what is wrong with it
        some = rows[:SAMPLE_RECORDS]
        return [dict(zip(names, row, strict=True)) for row in some if len(row) == len(names)]

    def options(self) -> dict[str, Any]:
        """Return dialect, columns and types as the user gave them."""
        return {
            "kind": self.kind,
            "delimiter": self.delimiter,
            "quote": self.quote,
            "columns": self.columns and list(self.columns),
            "types": _plain_types(self.types),
            "encoding": self.encoding,
        }

    def learned(self) -> dict[str, Any]:
        """Return the types of the columns."""
        return {"types": _plain_types(self.types)}

    def relearned(self, learned: dict[str, Any]) -> Source:
        """Return the source with the types that an earlier run inferred."""
        types = {name: CellType(kind) for name, kind in (learned["types"] or {}).items()}
        return replace(self, types=types, inferred=frozenset(types.keys() - (self.types or {}).keys()))

    def cuttable(self, item: InputFile) -> bool:
        """Whether a file can be cut: plain ones, in dialects and encodings based on ASCII."""
        ascii_only = self.delimiter.isascii() and (self.quote or "").isascii() and is_ascii_based(self.encoding)
        return item.compression is None and ascii_only

    def cuts(self, item: InputFile, gap: Range = (0, None)) -> Cuts:
        """Return a function that cuts a file at ends of records; the driver reads its header here."""
        try:
            with bounded_reads(), closing(RowReader(self.dialect(), Span(item), self.encoding)) as reader:
                names = self._names(reader)
                first = reader.position()
        except (OSError, ValueError):
            return uncut(item, gap)  # the worker that reads the file tells what is wrong with it
        return CsvSplitter(item, self.delimiter, self.quote, first, tuple(names), gap).cut

    def dialect(self) -> dict[str, Any]:
        """Return the arguments of Python's `csv.reader`."""
        quoting = csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE
        return {"delimiter": self.delimiter, "quotechar": self.quote or '"', "quoting": quoting}

    def _names(self, reader: RowReader) -> Sequence[str]:
        """Return the names of the columns, read from the header where they are not given."""
        if self.columns is not None:
            return self.columns
        names = reader.header()
        if len(set(names)) < len(names):
            doubled = next(name for name in names if names.count(name) > 1)
            message = f"the header names the column {doubled!r} more than once"
            raise ValueError(message)
        if not all(map(is_decoded, names)):
            message = f"the header is not {self.encoding.upper()}: {cure_of_encoding(self.encoding)}"
            raise ValueError(message)
        return names

    def needs(self, span: Span) -> list[tuple[int, int]]:
        """Return a span as it is, since it was cut at ends of records, and the header if it is not known."""
        if span.whole:
            return super().needs(span)
        own = (span.start, span.stop or span.input.size)
        return [own] if span.header or not span.start else [(0, min(BLOCK_BYTES, span.start)), own]

    def blocks(self, span: Span, data: Any) -> Iterator[Block]:
        """Read the records of one span; a record that does not fit its header or types is a failure."""
        del data
        names = span.header
        if names is None and span.start > 0:  # of an earlier run, which wrote down no header
            with closing(RowReader(self.dialect(), Span(span.input), self.encoding)) as reader:
                names = self._names(reader)
        with closing(RowReader(self.dialect(), span, self.encoding)) as reader:
            names = self._names(reader) if names is None else names
            first = 0
            for rows, places in reader.batches():
                yield self._typed(span, rows, names, first, places)
                first += len(rows)

    def _typed(
        self, span: Span, rows: list[list[str]], names: Sequence[str], first: int, places: RowOffsets
    ) -> Block:
        end = first + len(rows)

        def locate(number: int) -> tuple[int, int]:
            return places.locate(number - first)

        types = self.types or {}
        columns = [_Column(name, types.get(name, CellType.TEXT), self._is_inferred(name)) for name in names]
        if names and places.clean and not places.is_open and set(map(len, rows)) == {len(names)}:
            try:
                cells = [
                    column.values(texts) for column, texts in zip(columns, zip(*rows, strict=True), strict=True)
                ]
                records = [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]
                return Block(span, records, range(first, end), end, locate, (), _size(rows))
            except ValueError:
                pass  # the cell at fault is found in the slow lane below
        records, numbers, failures = [], [], []
        for number, row in enumerate(rows, first):
            if not row:
                continue  # a blank line, which csv.DictReader leaves out too
            is_last = number == end - 1
            problem = self._unclosed(span, places, number - first) if is_last and places.is_open else None
            problem = problem or self._misfit(row, columns)
            if problem is None:
                records.append(
                    {column.name: column.value(text) for column, text in zip(columns, row, strict=True)}
                )
                numbers.append(number)
            else:
                text = self.delimiter.join(row).encode("utf-8", "surrogateescape")
                failures.append(unreadable(span, locate(number), number, text, problem))
        return Block(span, records, numbers, end, locate, failures, _size(rows))

    def _is_inferred(self, name: str) -> bool:
        return self.inferred is None or name in self.inferred

    def _unclosed(self, span: Span, places: RowOffsets, at: int) -> str:
        """Return what is wrong with the last row, whose quote takes in the rest of the file."""
        before, lines = places.line_of(at)
        if not span.input.compression and is_ascii_based(self.encoding):
            with suppress(OSError):  # a worker on another machine has not all of the file
                before = count_lines(span.input.uri, places.locate(at)[0])
        where = f"line {before + 1:,}"
        return f"a quote opens in {where} and is never closed: it takes in {counted(lines, 'line')}; {OPEN_CURE}"

    def _misfit(self, row: list[str], columns: Sequence[_Column]) -> str | None:
        """Return why a row does not fit, ``None`` if it does."""
        if len(row) != len(columns):
            return f"{len(row)} cells, but the header has {len(columns)} columns"
        for column, text in zip(columns, row, strict=True):
            if not is_decoded(text):
                return (
                    f"column {column.name!r}: the bytes are not {self.encoding.upper()}: "
                    f"{cure_of_encoding(self.encoding)}"
                )
            try:
                column.value(text)
            except ValueError:
                return column.problem(text)
        return None

    def table(self, rows: Sequence[Any]) -> pa.Table:
        """Return records as a table whose columns have the types of this source in every chunk."""
        import pyarrow as pa

        from batchflow.io.arrow.convert import rows_to_table

        table = rows_to_table(rows)
        kinds = self.types or {}
        fields = [pa.field(name, kinds.get(name, CellType.TEXT).arrow) for name in table.column_names]
        return table.cast(pa.schema(fields))


class _Column(NamedTuple):
    """A column as its cells are converted."""

    name: str
    kind: CellType
    inferred: bool

    def value(self, text: str) -> Any:
        """Return the value of a cell; raises `ValueError` if it does not fit."""
        return self.kind.cell(text, exact=self.inferred)

    def values(self, texts: Sequence[str]) -> Sequence[Any]:
        """Return the values of many cells."""
        return self.kind.column(texts, exact=self.inferred)

    def problem(self, text: str) -> str:
        """Return why a cell does not fit, and what to do."""
        shown, kind, name = text[:50], self.kind.value, self.name
        if not self.inferred:
            return f"column {name!r}: {shown!r} is not of type {kind}"
        return (
            f"column {name!r}: {shown!r} is not of type {kind}, inferred from the first rows: to keep such cells "
            f"as they are, pass types={{{name!r}: str}} (--types {name}=str)"
        )


_OTHERS = ";\t|"
"""What stands between cells in the place of a comma."""


def _delimited(columns: Sequence[str]) -> Iterator[str]:
    """Yield that the only column may be several."""
    mark = next((mark for mark in _OTHERS if mark in columns[0]), None) if len(columns) == 1 else None
    if mark is not None:
        yield (
            f"the only column is {columns[0][:50]!r}: if its cells are parted by {mark!r}, pass "
            f"delimiter={mark!r} (--delimiter {mark!r})"
        )


def _mistyped(name: str, cells: Sequence[str]) -> Iterator[str]:
    """Yield that a column is read as text for the sake of a few cells."""
    odd = odd_cell(cells)
    if odd is not None:
        kind, cell = odd
        cure = f"types={{{name!r}: {kind.value}}} (--types {name}={kind.value})"
        yield (
            f"column {name!r} is read as text, as {cell[:50]!r} is no number and nearly all are: with {cure} "
            "such cells are errors of their records"
        )


def _plain_types(types: Mapping[str, CellType] | None) -> dict[str, str] | None:
    return None if types is None else {name: kind.value for name, kind in types.items()}


def _size(rows: list[list[str]]) -> int:
    """Return about how many bytes some rows take up in the file."""
    some = rows[:50]
    return sum(len(cell) + 1 for row in some for cell in row) * len(rows) // max(1, len(some))


def column_types(types: Any) -> Mapping[str, CellType] | None:
    """Return the ``types=`` of `read_csv` as a mapping, an empty one for ``str``: every cell is left as it is.

    Raises
    ------
    FormatError
        If a type is not one that a cell can have.
    """
    if types is None:
        return None
    if types is str:
        return {}
    items: Callable[[], Any] | None = getattr(types, "items", None)
    pairs = items() if items else ((field.name, field.type) for field in types)
    return {name: CellType.of(kind) for name, kind in pairs}
