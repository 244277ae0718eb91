"""The rows of a CSV file, read by Python's `csv` module, and where each of them stands."""

from __future__ import annotations

import csv
import io
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import accumulate, chain, islice
from typing import Any, NamedTuple

from batchflow.core.chunks import Span
from batchflow.io.formats.streaming import any_field_size
from batchflow.io.sources.line_reader import BOM, read_whole_lines
from batchflow.io.sources.text_encoding import UTF8, is_ascii_based

_BLOCK_ROWS = 2048
_END = "\ue000\uf8ff\ue000"
"""Both cells of a line after the last one: a row of its own, unless a quote is open."""


OPEN_CURE = "close it, or pass quote=None (--quote '') if quotes are text"


def is_decoded(text: str) -> bool:
    """Whether all bytes of a text were of its encoding."""
    return text.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in text)


class _Text(NamedTuple):
    """A block of whole lines, as it went into the `csv` reader."""

    line: int
    """Lines of the span before it."""
    offset: int
    """Byte of the file at which it begins."""
    text: str
    clean: bool
    """Whether all bytes are of the encoding; the others are lone surrogates."""

    def lines(self) -> Iterator[str]:
        return io.StringIO(self.text, newline="")


@dataclass(slots=True)
class RowOffsets:
    """Where some rows stand in the file, found by reading them again; only when something failed."""

    dialect: Mapping[str, Any]
    texts: Sequence[_Text]
    """The blocks that hold the rows."""
    line: int
    """Lines of the span before the rows."""
    encoding: str = UTF8
    is_open: bool = False
    """Whether a quote of the last row is never closed."""
    by_line: bool = False
    """Whether each row is one line, so that nothing needs to be parsed again."""
    _starts: list[int] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether all bytes are of the encoding."""
        return all(text.clean for text in self.texts)

    def locate(self, at: int) -> tuple[int, int]:
        """Return first and last byte + 1 of a row."""
        if not self._starts:
            self._starts = self.starts()
        return self._starts[at], self._starts[at + 1]

    def starts(self) -> list[int]:
        """Return where each row begins, and where the last one ends."""
        if not self.texts:
            return [0]
        lines = [line for text in self.texts for line in text.lines()]
        sizes: Iterable[int] = map(len, lines)
        if not all(map(str.isascii, lines)):
            sizes = (len(line.encode(self.encoding, "surrogateescape")) for line in lines)
        ends = list(accumulate(sizes, initial=self.texts[0].offset))
        skipped = min(self.line - self.texts[0].line, len(lines))  # the line after the last one is in no block
        rest = ends[skipped:]
        if self.by_line:
            return rest
        reader = csv.reader(lines[skipped:], **self.dialect)
        with any_field_size():
            return [rest[0], *(rest[reader.line_num] for _ in islice(reader, _BLOCK_ROWS))]

    def line_of(self, at: int) -> tuple[int, int]:
        """Return the lines of the span before a row, and the lines that it takes up."""
        lines = [line for text in self.texts for line in text.lines()]
        reader = csv.reader(lines[self.line - self.texts[0].line :], **self.dialect)
        with any_field_size():
            numbers = [0, *(reader.line_num for _ in islice(reader, _BLOCK_ROWS))]
        return self.line + numbers[at], numbers[at + 1] - numbers[at]


class RowReader:
    """The rows of a span, read by Python's `csv` module."""

    def __init__(self, dialect: Mapping[str, Any], span: Span, encoding: str = UTF8) -> None:
        self._dialect = dialect
        self._encoding = encoding
        self._decoded_as = encoding if is_ascii_based(encoding) else UTF8
        self._end = f"{_END}{dialect['delimiter']}{_END}"
        self._texts: list[_Text] = []
        self._blocks = self._decoded(span)
        self._rows = csv.reader(chain(chain.from_iterable(self._blocks), [self._end]), **self._dialect)

    def _decoded(self, span: Span) -> Generator[Iterator[str]]:
        with closing(read_whole_lines(span, aligned=True, encoding=self._encoding)) as blocks:
            for offset, data in blocks:
                begin = len(BOM) if offset == 0 and data.startswith(BOM) else 0
                try:
                    text, clean = data[begin:].decode(self._decoded_as), True
                except UnicodeDecodeError:
                    text, clean = data[begin:].decode(self._decoded_as, "surrogateescape"), False
                self._texts.append(_Text(self._rows.line_num, offset + begin, text, clean))
                yield self._texts[-1].lines()

    def header(self) -> list[str]:
        """Return the first row that is no blank line, nor one of spaces."""
        with any_field_size():
            row = next((row for row in self._rows if len(row) > 1 or (row and row[0].strip())), [])
        if row == [_END, _END]:
            return []
        if row and row[-1].endswith(self._end):
            message = f"a quote opens in the header and is never closed: {OPEN_CURE}"
            raise ValueError(message)
        return row

    def position(self) -> int:
        """Return the byte at which the rows begin that were not read; no more can be read afterwards."""
        if not self._texts:
            next(self._blocks, None)  # it may begin with a byte order mark
        return RowOffsets(self._dialect, self._texts, self._rows.line_num, self._decoded_as).starts()[0]

    def batches(self) -> Iterator[tuple[list[list[str]], RowOffsets]]:
        """Yield some rows at a time; a damage is raised after what comes before it."""
        going = True
        while going:
            line = self._rows.line_num
            while len(self._texts) > 1 and self._texts[1].line <= line:
                del self._texts[0]
            rows: list[list[str]] = []
            damage = None
            with any_field_size():
                try:
                    rows.extend(islice(self._rows, _BLOCK_ROWS))
                except OSError as error:
                    damage = error
            going = bool(rows)
            total = len(rows)
            if rows and rows[-1] == [_END, _END]:
                rows.pop()
            by_line = self._rows.line_num - line == total
            is_open = bool(rows and rows[-1] and rows[-1][-1].endswith(self._end))
            if rows:
                yield rows, RowOffsets(self._dialect, tuple(self._texts), line, self._decoded_as, is_open, by_line)
            if damage is not None:
                raise damage

    def close(self) -> None:
        """Close the file."""
        self._blocks.close()
