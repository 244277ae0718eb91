"""CSV files, read as Python's `csv` module reads them, wherever they are cut."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, ClassVar

from batchflow.model import Input, Span
from batchflow.sources.base import Block, FileSource, Source
from batchflow.sources.cells import SAMPLE_RECORDS, CellType, infer
from batchflow.sources.compression import open_text
from batchflow.sources.cutting import Cuts
from batchflow.sources.lines import BOM, read_whole_lines
from batchflow.sources.paths import open_input
from batchflow.sources.quotes import RecordCuts
from batchflow.sources.text import unreadable

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK_ROWS = 2048
_SAMPLE_FILES = 3


@dataclass(frozen=True)
class CsvSource(FileSource):
    """CSV files, each with its own header; a record is a dict from column to cell."""

    kind: ClassVar[str] = "csv"
    delimiter: str = ","
    quote: str | None = '"'
    columns: tuple[str, ...] | None = None
    """Names of the columns of files without a header."""
    types: Mapping[str, CellType] | None = None
    """Type of each column; a column that is not named is text. ``None``: inferred by `prepared`."""

    def prepared(self, inputs: Sequence[Input]) -> Source:
        """Return the source with its types inferred from the first 1,000 records of three files."""
        if self.types is not None:
            return self
        cells: dict[str, list[str]] = {}
        sampled = 0
        for item in inputs[:1000]:
            if sampled == _SAMPLE_FILES:
                break
            rows = self._sample(item)
            sampled += bool(rows)
            for row in rows:
                for name, cell in row.items():
                    cells.setdefault(name, []).append(cell)
        return replace(self, types={name: infer(column) for name, column in cells.items()})

    def _sample(self, item: Input) -> list[dict[str, str]]:
        try:
            names, _ = self._header(item)
            rows = islice(self._reader(Span(item), []), SAMPLE_RECORDS + 1)
            body = list(rows)[0 if self.columns else 1 :]
        except (OSError, ValueError):
            return []  # the worker that reads the file tells what is wrong with it
        return [dict(zip(names, row, strict=True)) for row in body if len(row) == len(names)]

    def cuttable(self, item: Input) -> bool:
        """Whether a file can be cut: plain ones, in dialects of ASCII characters."""
        return item.compression is None and self.delimiter.isascii() and (self.quote or "").isascii()

    def cuts(self, item: Input) -> Cuts:
        """Return a function that cuts a file at ends of records; the driver reads its header here."""
        try:
            names, first = self._header(item)
        except (OSError, ValueError):
            return _whole(item)  # the worker that reads the file tells what is wrong with it
        return RecordCuts(item, self.delimiter, self.quote, first, tuple(names)).cut

    def _header(self, item: Input) -> tuple[Sequence[str], int]:
        """Return the names of the columns and the byte at which the first record begins."""
        with closing(open_input(item.uri)) as raw:
            stream = open_text(raw, item.compression)
            lines = _first_lines(stream)
            first = next(lines, b"")
            bom = len(BOM) if first.startswith(BOM) else 0
            if self.columns is not None:
                return self.columns, bom
            taken: list[bytes] = [first[bom:]]
            texts = chain(taken, _noting(lines, taken))
            with any_field_size():
                names = next(csv.reader((text.decode() for text in texts), **self._dialect()), [])
        _refuse_doubles(names)
        return names, bom + sum(map(len, taken))

    def _dialect(self) -> dict[str, Any]:
        quoting = csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE
        return {"delimiter": self.delimiter, "quotechar": self.quote or '"', "quoting": quoting}

    def _reader(self, span: Span, dirty: list[bool]) -> Iterator[list[str]]:
        """Return the `csv` reader of a span; ``dirty`` is filled when text is not UTF-8."""

        def texts() -> Iterator[io.StringIO]:
            for offset, data in read_whole_lines(span):
                body = data[len(BOM) :] if offset == 0 and data.startswith(BOM) else data
                try:
                    text = body.decode()
                except UnicodeDecodeError:
                    dirty.append(True)
                    text = body.decode("utf-8", "surrogateescape")
                yield io.StringIO(text, newline="")

        return csv.reader(chain.from_iterable(texts()), **self._dialect())

    def blocks(self, span: Span, data: Any) -> Iterator[Block]:
        """Read the records of one span; a record that does not fit its header or types is a failure."""
        del data
        dirty: list[bool] = []
        reader = self._reader(span, dirty)
        names: Sequence[str] | None = span.header or self.columns
        if names is None:
            names = _next_row(reader)
            _refuse_doubles(names)
        places = _Places(self, span)
        number = 0
        while rows := _next_rows(reader):
            yield self._typed(span, rows, names, number, places, bool(dirty))
            number += len(rows)

    def _typed(
        self, span: Span, rows: list[list[str]], names: Sequence[str], first: int, places: _Places, dirty: bool
    ) -> Block:
        end = first + len(rows)
        types = [(self.types or {}).get(name, CellType.TEXT) for name in names]
        if not dirty and set(map(len, rows)) == {len(names)}:
            try:
                columns = [kind.column(cells) for kind, cells in zip(types, zip(*rows, strict=True), strict=True)]
                records = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
                return Block(span, records, range(first, end), end, places.locate, (), _size(rows))
            except ValueError:
                pass  # the cell at fault is found in the slow lane below
        records, numbers, failures = [], [], []
        for number, row in enumerate(rows, first):
            if not row:
                continue  # a blank line, which csv.DictReader leaves out too
            problem = _misfit(row, names, types)
            if problem is None:
                cells = [kind.cell(text) for kind, text in zip(types, row, strict=True)]
                records.append(dict(zip(names, cells, strict=True)))
                numbers.append(number)
            else:
                text = self.delimiter.join(row).encode("utf-8", "surrogateescape")
                failures.append(unreadable(span, places.locate(number), number, text, problem))
        return Block(span, records, numbers, end, places.locate, failures, _size(rows))

    def table(self, rows: Sequence[Any]) -> pa.Table:
        """Return records as a table whose columns have the types of this source in every chunk."""
        import pyarrow as pa

        from batchflow.tables import rows_to_table

        table = rows_to_table(rows)
        kinds = self.types or {}
        fields = [pa.field(name, kinds.get(name, CellType.TEXT).arrow) for name in table.column_names]
        return table.cast(pa.schema(fields))


def _whole(item: Input) -> Cuts:
    spans = iter([(Span(item), max(1, item.size))])
    return lambda _: next(spans, None)


def _refuse_doubles(names: Sequence[str]) -> None:
    doubled = {name for name in names if list(names).count(name) > 1}
    if doubled:
        message = f"the header names the column {min(doubled)!r} more than once"
        raise ValueError(message)


def _first_lines(stream: Any) -> Iterator[bytes]:
    """Yield lines with their endings, as a file opened with ``newline=""`` does."""
    rest = b""
    while data := stream.read(1 << 16):
        lines = (rest + data).splitlines(keepends=True)
        rest = lines.pop()
        yield from lines
    if rest:
        yield from rest.splitlines(keepends=True)


def _noting(lines: Iterator[bytes], taken: list[bytes]) -> Iterator[bytes]:
    for line in lines:
        taken.append(line)
        yield line


@contextmanager
def any_field_size() -> Iterator[None]:
    """Lift the limit of the `csv` module on the size of a cell, which is one for the whole process."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _next_row(reader: Iterator[list[str]]) -> list[str]:
    with any_field_size():
        return next(reader, [])


def _next_rows(reader: Iterator[list[str]]) -> list[list[str]]:
    """Return the next rows; what comes before a damage is given before the damage is raised."""
    rows: list[list[str]] = []
    with any_field_size():
        try:
            rows.extend(islice(reader, _BLOCK_ROWS))
        except OSError:
            if not rows:
                raise
    return rows


def _size(rows: list[list[str]]) -> int:
    """Return about how many bytes some rows take up in the file."""
    some = rows[:50]
    return sum(len(cell) + 1 for row in some for cell in row) * len(rows) // max(1, len(some))


def _misfit(row: list[str], names: Sequence[str], types: list[CellType]) -> str | None:
    """Return why a row does not fit, ``None`` if it does."""
    if len(row) != len(names):
        return f"{len(row)} cells, but the header has {len(names)} columns"
    for name, text, kind in zip(names, row, types, strict=True):
        if not text.isascii() and any("\udc80" <= letter <= "\udcff" for letter in text):
            return f"column {name!r}: the bytes are not UTF-8"
        try:
            kind.cell(text)
        except ValueError:
            return (
                f"column {name!r}: {text[:50]!r} is not of type {kind.value}; "
                f"if types were inferred, pass types={{{name!r}: str}}"
            )
    return None


class _Places:
    """Where the records of a span stand, found by reading it again; made only when something failed."""

    def __init__(self, source: CsvSource, span: Span) -> None:
        self._source = source
        self._span = span
        self._starts: list[int] | None = None

    def locate(self, number: int) -> tuple[int, int]:
        """Return first and last byte + 1 of a record."""
        if self._starts is None:
            self._starts = self._find()
        return self._starts[number], self._starts[min(number + 1, len(self._starts) - 1)]

    def _find(self) -> list[int]:
        lengths: list[int] = []
        begin = [self._span.start]

        def lines() -> Iterator[str]:
            for at, (offset, data) in enumerate(read_whole_lines(self._span)):
                body = data
                if offset == 0 and data.startswith(BOM):
                    body, begin[0] = data[len(BOM) :], len(BOM)
                elif at == 0:
                    begin[0] = offset
                for line in io.StringIO(body.decode("utf-8", "surrogateescape"), newline=""):
                    lengths.append(len(line.encode("utf-8", "surrogateescape")))
                    yield line

        starts, at, seen = [], 0, 0
        reader = csv.reader(lines(), **self._source._dialect())
        with any_field_size():
            try:
                for _ in reader:
                    starts.append(begin[0] + at)
                    at += sum(lengths[seen : reader.line_num])
                    seen = reader.line_num
            except OSError:
                pass  # told by the first reading
        starts.append(begin[0] + at)
        return starts if self._span.header or self._source.columns else starts[1:]


def column_types(types: Any) -> Mapping[str, CellType] | None:
    """Return the ``types=`` of `read_csv` as a mapping; ``str`` leaves every cell as it is.

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


