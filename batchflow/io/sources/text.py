"""Lines of text files, and the common way from lines to records."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from batchflow.core.chunks import InputFile, Span
from batchflow.core.coverage import Range
from batchflow.core.outcomes import Failure
from batchflow.io.sources.base import DECODED_BYTES, Block, ReleasableRecords, explain, show
from batchflow.io.sources.file_source import FileSource
from batchflow.io.sources.line_reader import (
    BOM,
    BoundedReadError,
    LineBlock,
    bounded_reads,
    end_of_line,
    read_lines,
)
from batchflow.io.sources.paths import open_input
from batchflow.io.sources.splitter import Cuts, uncut
from batchflow.io.sources.text_encoding import UTF8, is_ascii_based


@dataclass(frozen=True)
class LineSource(FileSource):
    """A source with a record on every line, blank lines perhaps not counted as records."""

    unit: ClassVar[str]
    """What the file consists of, in the plural."""
    skips_blank: ClassVar[bool]
    encoding: str = UTF8

    def options(self) -> dict[str, Any]:
        """Return the encoding as the user named it."""
        return {**super().options(), "encoding": self.encoding}

    def summary(self) -> list[tuple[str, str]]:
        """Return the encoding, if it is not UTF-8."""
        return [] if self.encoding == UTF8 else [("format", f"{self.unit}, encoding {self.encoding}")]

    def cuttable(self, item: InputFile) -> bool:
        """Whether a file can be cut at any line feed among its bytes."""
        return item.compression is None and is_ascii_based(self.encoding)

    def cuts(self, item: InputFile, gap: Range = (0, None)) -> Cuts:
        """Return a function that cuts a file; what is no text is left whole, so that it is one failure."""
        try:
            with bounded_reads(), closing(read_lines(Span(item), self.encoding)) as blocks:
                first = next(blocks, None)
                if first is not None:
                    self.check_start(first)
        except BoundedReadError:
            pass  # one long line
        except OSError:
            return uncut(item, gap)
        return super().cuts(item, gap)

    def check_start(self, lines: LineBlock) -> None:
        """Raise `NotTextError` if the first lines of a file show that it holds other records."""

    def holds_one(self, span: Span) -> bool:
        """Whether a line begins at the one byte that is left of a span."""
        if span.start == 0:
            return True
        with closing(open_input(span.input.uri)) as raw:
            raw.seek(span.start - 1)
            return bool(raw.read(1) == b"\n")

    def needs(self, span: Span) -> list[tuple[int, int]]:
        """Return the bytes from just before a span to the end of the last line that begins in it."""
        if span.whole:
            return super().needs(span)
        stop = span.stop or span.input.size
        return [(max(0, span.start - 1), end_of_line(span.input.uri, stop - 1))]

    @abstractmethod
    def decoders(self) -> tuple[Callable[[bytes], Any], Callable[[bytes], Any]]:
        """Return two functions from a line to its record: a fast one that may refuse some, and a patient one.

        What the patient one raises tells why a line is no record.
        """

    def blocks(self, span: Span, data: Any) -> Iterator[Block]:
        """Read the lines of one span and decode them; a line that cannot be decoded is a failure."""
        del data
        return self._blocks(span, None)

    def fine_blocks(self, span: Span, data: Any) -> Iterator[Block]:
        """Read the same in blocks that the processor's cache holds once they are decoded."""
        del data
        return self._blocks(span, DECODED_BYTES)

    def _blocks(self, span: Span, nbytes: int | None) -> Iterator[Block]:
        decoders = self.decoders()
        first = 0
        for lines in read_lines(span, self.encoding):
            if span.whole and lines.offset <= len(BOM):  # the driver checks those that it cuts
                self.check_start(lines)
            for part in lines.parts(nbytes) if nbytes else (lines,):
                yield self._decoded(span, part, decoders, first)
                first += len(part.texts)

    def _decoded(self, span: Span, lines: LineBlock, decoders: tuple[Any, Any], first: int) -> Block:
        texts = lines.texts
        end = first + len(texts)

        def locate(number: int) -> tuple[int, int]:
            return lines.locate(number - first)

        try:
            return Block(
                span, ReleasableRecords(texts, decoders[0]), range(first, end), end, locate, (), lines.nbytes
            )
        except MemoryError:
            raise  # of the task as a whole: no line is at fault before it stands alone
        except Exception:
            rows, numbers, failures = self._one_by_one(span, lines, decoders[1], first)
            return Block(span, rows, numbers, end, locate, failures, lines.nbytes)

    def _one_by_one(
        self, span: Span, lines: LineBlock, decode: Callable[[bytes], Any], first: int
    ) -> tuple[ReleasableRecords, list[int], list[Failure]]:
        texts, rows, numbers, failures = [], [], [], []
        for at, text in enumerate(lines.texts):
            if self.skips_blank and not text.strip():
                continue
            try:
                rows.append(decode(text))
                texts.append(text)
                numbers.append(first + at)
            except MemoryError:
                raise
            except UnicodeDecodeError as error:
                wrong = f"{error}: {cure_of_encoding(self.encoding)}"
                failures.append(unreadable(span, lines.locate(at), first + at, text, wrong))
            except Exception as error:
                place = lines.locate(at)
                failures.append(unreadable(span, place, first + at, text, error))
        return ReleasableRecords(texts, decode, rows), numbers, failures


def unreadable(span: Span, place: tuple[int, int], number: int, record: Any, error: Exception | str) -> Failure:
    """Return the failure of one record that could not be read."""
    kind, message = ("ValueError", error) if isinstance(error, str) else (type(error).__name__, explain(error))
    return Failure(span.input.uri, *place, number, show(record), "read", kind, message)


def cure_of_encoding(encoding: str) -> str:
    """Return what to do about bytes that are not of an encoding."""
    other = "latin-1" if encoding == UTF8 else UTF8
    return f"if the file is in another encoding, pass it, like encoding={other!r} (--encoding {other})"


@dataclass(frozen=True)
class TextSource(LineSource):
    """Lines of text; a record is a `str` without its line ending."""

    kind: ClassVar[str] = "text"
    unit: ClassVar[str] = "lines"
    skips_blank: ClassVar[bool] = False

    def decoders(self) -> tuple[Callable[[bytes], str], Callable[[bytes], str]]:
        """Return the decoder of lines, for both."""
        decoder = line_decoder(self.encoding)

        def decode(line: bytes) -> str:
            return decoder(line[:-1] if line.endswith(b"\r") else line)

        return (_decode_line, _decode_line) if decoder is bytes.decode else (decode, decode)


def line_decoder(encoding: str) -> Callable[[bytes], str]:
    """Return the decoder of a line; lines in encodings that are not based on ASCII are UTF-8 by now."""
    if encoding == UTF8 or not is_ascii_based(encoding):
        return bytes.decode
    return partial(str, encoding=encoding)


def _decode_line(line: bytes) -> str:
    return (line[:-1] if line.endswith(b"\r") else line).decode()
