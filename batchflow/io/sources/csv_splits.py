"""Where a CSV file may be cut: only where a record ends, which its quotes decide.

The rules are those of Python's `csv` reader with ``strict=False``: a quote opens a quoted field
only as the first character of the field, two quotes inside a quoted field are one literal quote,
and any other quote is text.
"""

from __future__ import annotations

from contextlib import closing
from typing import IO, Any

from batchflow.core.chunks import InputFile, Span
from batchflow.core.coverage import Range
from batchflow.io.sources.paths import open_input

_SCAN_BYTES = 1 << 20
_LEAST_BYTES = 4096
"""How much is read at a time, at most and at least."""


def ends_quoted(lines: bytes, quoted: bool, delimiter: bytes, quote: bytes) -> bool:
    """Return whether a quoted field is open after some whole lines.

    Parameters
    ----------
    lines
        Bytes that begin at the start of a line and end with a line feed.
    quoted
        Whether a quoted field is open at their start.
    delimiter, quote
        The characters of the dialect, one ASCII byte each.
    """
    between = lines.split(quote)
    count = len(between) - 1
    if count == 0:
        return quoted
    # When each opening quote stands at the start of a field, or right behind a closing one (a
    # doubled quote), every quote opens or closes, and counting them is exact.
    before_opening = {text[-1:] for text in between[int(quoted) : count : 2]}
    if before_opening <= {b"", b"\n", b"\r", delimiter}:
        return quoted ^ bool(count & 1)
    return _walk(between, quoted, (b"\n", b"\r", delimiter))


def _walk(between: list[bytes], quoted: bool, starts: tuple[bytes, ...]) -> bool:
    """Go from quote to quote, given the text before, between and after them."""
    at, last = 0, len(between) - 1
    fresh = True  # whether no text stands before the quote on its line
    while at < last:
        text = between[at]
        if not quoted:
            quoted = text.endswith(starts) or (fresh and not text)
        elif at + 1 < last and not between[at + 1]:
            at += 1  # a doubled quote, and the field stays open
        else:
            quoted = False
        fresh = False
        at += 1
    return quoted


class CsvSplitter:
    """Cuts a range of a plain CSV file at ends of records, reading it once from start to end.

    Parameters
    ----------
    first
        Byte behind the header, which the first span of the file holds beside its records.
    """

    def __init__(
        self, item: InputFile, delimiter: str, quote: str | None, first: int, header: Any, gap: Range = (0, None)
    ) -> None:
        self._input = item
        self._delimiter = delimiter.encode()
        self._quote = quote.encode() if quote else None
        self._first = first
        self._header = header
        self._start, stop = gap
        self._stop = item.size if stop is None else stop

    def cut(self, weight: int) -> tuple[Span, int] | None:
        """Return the next span and its bytes, ``None`` at the end of the range."""
        start, size = self._start, self._stop
        if start >= size:
            return None
        begin = max(start, self._first)
        stop = begin + weight
        if size - stop < weight // 2:
            self._start = size
        else:
            try:
                with closing(open_input(self._input.uri)) as raw:
                    self._start = min(size, self._record_end(raw, begin, stop))
            except OSError:
                self._start = size  # the worker that reads the file tells what is wrong with it
        return Span(self._input, start, self._start, self._header if start else None), self._start - start

    def _record_end(self, raw: IO[bytes] | Any, start: int, wanted: int) -> int:
        """Return the first end of a record, at a line feed, at or a little behind a byte."""
        raw.seek(start)
        at, quoted = start, False
        kept: list[bytes] = []  # a line that has not ended yet
        while data := raw.read(min(_SCAN_BYTES, max(_LEAST_BYTES, wanted - at))):
            end = data.rfind(b"\n") + 1
            if not end:
                kept.append(data)
                continue
            block = b"".join([*kept, data[:end]])
            kept = [data[end:]]
            # More is read than a small weight asks for.
            small = wanted - start < _LEAST_BYTES
            for lines in [line + b"\n" for line in block[:-1].split(b"\n")] if small else [block]:
                at += len(lines)
                if self._quote:
                    quoted = ends_quoted(lines, quoted, self._delimiter, self._quote)
                if at >= wanted and not quoted:
                    return at
        return self._stop
