"""Lines of a text file: any range of its bytes gives the lines that begin inside it."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import accumulate
from typing import IO, Any

from batchflow.core.chunks import Span
from batchflow.io.sources.base import BLOCK_BYTES
from batchflow.io.sources.compression import open_text
from batchflow.io.sources.file_signature import check_text
from batchflow.io.sources.paths import open_input
from batchflow.io.sources.text_encoding import UTF8, Transcoded, is_ascii_based

BOM = b"\xef\xbb\xbf"


class TruncatedError(OSError):
    """A file that ends before the range that was planned does: it shrank since.

    Attributes
    ----------
    position : int
        Byte at which the line begins that the end of the file cuts off.
    """

    hopeless = True
    """Another try finds the same."""

    def __init__(self, raw: IO[bytes] | Any, planned: int, position: int) -> None:
        raw.seek(0, os.SEEK_END)
        end = raw.tell()
        what = f"the file ends at byte {end}" if end else "the file is empty"
        super().__init__(f"{what}, but had at least {planned} bytes when the job was planned")
        self.position = position


LOOK_BYTES = 16 << 20
_most: ContextVar[int | None] = ContextVar("_most", default=None)


class BoundedReadError(OSError):
    """What the driver looks for is not at the beginning of a file: there is an endless line, say, or cell."""


@contextmanager
def bounded_reads() -> Iterator[None]:
    """Read no more than `LOOK_BYTES` of each file: the driver's memory must not depend on what is in it.

    More raises `LookError`, after what comes before.
    """
    token = _most.set(LOOK_BYTES)
    try:
        yield
    finally:
        _most.reset(token)


class _Look:
    """A stream of which only the beginning may be read."""

    def __init__(self, stream: Any, most: int) -> None:
        self._stream = stream
        self._left = most

    def read(self, size: int) -> Any:
        if self._left <= 0:
            message = f"the beginning of the file, {LOOK_BYTES >> 20} MiB, does not tell"
            raise BoundedReadError(message)
        self._left -= size
        return self._stream.read(size)


class _Start:
    """A stream from its start on, whose first block is checked to be text.

    Parameters
    ----------
    stream, encoding
        What is read, and as what.
    decompressed
        Whether it comes from a compressed file.
    """

    def __init__(self, stream: Any, encoding: str, *, decompressed: bool) -> None:
        self.read: Callable[[int], Any] = self._first
        self._stream = stream
        self._encoding = encoding
        self._decompressed = decompressed

    def _first(self, size: int) -> bytes:
        data: bytes = self._stream.read(size)
        check_text(data, encoded=self._encoding != UTF8, decompressed=self._decompressed)
        self.read = self._stream.read  # every later block, at no cost
        return data


@dataclass(slots=True)
class LineBlock:
    """Some neighbouring lines of a file, as bytes without their line feeds."""

    offset: int
    """Byte of the (decompressed) file at which the first line begins."""
    texts: list[bytes]
    nbytes: int
    _starts: list[int] = field(default_factory=list)

    def locate(self, at: int) -> tuple[int, int]:
        """Return first and last byte + 1 of a line, its line feed included."""
        if not self._starts:  # made once, and only when something failed
            self._starts = list(accumulate((len(text) + 1 for text in self.texts), initial=self.offset))
        return self._starts[at], min(self._starts[at + 1], self.offset + self.nbytes)

    def parts(self, nbytes: int) -> Iterator[LineBlock]:
        """Yield the lines in parts of about so many bytes."""
        step = max(1, len(self.texts) * nbytes // max(1, self.nbytes))
        offset, end = self.offset, self.offset + self.nbytes
        for at in range(0, len(self.texts), step):
            texts = self.texts[at : at + step]
            stop = min(end, offset + sum(map(len, texts)) + len(texts))  # the last one may have no line feed
            yield LineBlock(offset, texts, stop - offset)
            offset = stop


def read_lines(span: Span, encoding: str = UTF8) -> Generator[LineBlock]:
    """Yield the lines that begin inside a span of a file, some 256 kB at a time.

    Lines in an encoding that is not based on ASCII are converted to UTF-8.

    A carriage return before a line feed stays with its line; a byte order mark at the start of the
    file is left out.

    Raises
    ------
    OSError
        If the file cannot be read, is truncated or is not what its name says.
    """
    for offset, data in read_whole_lines(span, encoding=encoding):
        if offset == 0 and data.startswith(BOM):
            offset, data = len(BOM), data[len(BOM) :]
        texts = data.split(b"\n")
        if not texts[-1]:
            texts.pop()
        size = len(data)
        del data  # one line may be a gigabyte
        if texts:
            yield LineBlock(offset, texts, size)


def read_whole_lines(span: Span, *, aligned: bool = False, encoding: str = UTF8) -> Generator[tuple[int, bytes]]:
    """Yield (offset, bytes) of blocks that hold whole lines, of those that begin inside a span.

    ``aligned``: a line is known to begin where the span does.
    """
    with closing(open_input(span.input.uri)) as raw:
        stop = span.stop or span.input.size  # also of a whole file: what is appended later is not read
        stream: Any = open_text(raw, span.input.compression) if span.whole else raw
        streamed = stream is not raw or not is_ascii_based(encoding)
        if span.start == 0:
            stream = _Start(stream, encoding, decompressed=stream is not raw)
        if not is_ascii_based(encoding):
            stream = Transcoded(stream, encoding)
        most = _most.get()
        shown = stream if most is None else _Look(stream, most)
        if streamed or not stop:
            yield from _to_the_end(shown)
        else:
            begin = span.start if aligned else _first_line(raw, span.start, stop)
            raw.seek(begin)
            yield from _inside(raw, shown, begin, stop)


def _to_the_end(stream: Any) -> Iterator[tuple[int, bytes]]:
    """Yield blocks of whole lines until the stream ends; a damage is raised after what came before it."""
    offset = 0
    kept: list[bytes] = []
    while data := _read_before(stream, offset):
        end = data.rfind(b"\n") + 1
        if end:
            kept.append(data[:end])
            begin, offset = offset, offset + sum(map(len, kept))
            yield begin, _drained(kept)
            kept.append(data[end:])
        else:
            kept.append(data)
    if any(kept):
        yield offset, _drained(kept)


def _drained(kept: list[bytes]) -> bytes:
    """Join and forget some bytes, so that a line of a gigabyte is not held twice while it is worked on."""
    block = b"".join(kept)
    kept.clear()
    return block


def _read_before(stream: Any, offset: int) -> bytes:
    """Read a block; the line that a damage cuts off, which begins at an offset, belongs to the damage."""
    try:
        data: bytes = stream.read(BLOCK_BYTES)
        return data
    except OSError as error:
        if hasattr(error, "position"):
            error.position = offset
        raise


def _inside(raw: IO[bytes] | Any, stream: Any, begin: int, stop: int) -> Iterator[tuple[int, bytes]]:
    """Yield blocks of the whole lines from ``begin``, the position of the stream, to before ``stop``."""
    offset = begin
    kept: list[bytes] = []  # a line that has not ended yet, from byte begin to byte offset
    while begin < stop:
        data = stream.read(BLOCK_BYTES)
        if not data:
            if offset < stop:
                raise TruncatedError(raw, stop, begin)
            break
        # The last line wanted is the one that holds byte stop - 1.
        last = data.find(b"\n", max(0, stop - 1 - offset)) + 1 if offset + len(data) >= stop else 0
        end = last or data.rfind(b"\n", 0, max(0, stop - offset)) + 1
        offset += len(data)
        if end:
            kept.append(data[:end])
            first, begin = begin, begin + sum(map(len, kept))
            yield first, _drained(kept)
            kept.append(data[end:])
        else:
            kept.append(data)
        if last:
            return
    if any(kept):
        yield begin, _drained(kept)


def _first_line(raw: IO[bytes] | Any, start: int, stop: int) -> int:
    """Return the offset of the first line that begins at ``start`` or later."""
    if start == 0:
        return 0
    offset = start - 1  # a line feed just before the range begins a line in it
    raw.seek(offset)
    while offset < stop:
        data = raw.read(BLOCK_BYTES)
        if not data:
            raise TruncatedError(raw, stop, start)
        found = data.find(b"\n") + 1
        if found:
            return offset + found
        offset += len(data)
    return offset


def end_of_line(uri: str, offset: int) -> int:
    """Return the byte behind the line feed that ends the line which holds a byte of a file."""
    with closing(open_input(uri)) as raw:
        raw.seek(offset)
        while data := raw.read(BLOCK_BYTES):
            found = data.find(b"\n") + 1
            if found:
                return offset + found
            offset += len(data)
    return offset


def count_lines(uri: str, offset: int) -> int:
    """Return the line feeds before a byte of a file."""
    count = 0
    with closing(open_input(uri)) as raw:
        while offset > 0 and (data := raw.read(min(BLOCK_BYTES, offset))):
            count += data.count(b"\n")
            offset -= len(data)
    return count
