"""Lines of text files, and the common way from lines to records."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar

from batchflow.model import Failure, Span
from batchflow.sources.base import DECODED_BYTES, Block, Decoded, explain, show
from batchflow.sources.file_source import FileSource
from batchflow.sources.lines import Lines, end_of_line, read_lines
from batchflow.sources.paths import open_input


@dataclass(frozen=True)
class LineSource(FileSource):
    """A source with a record on every line, blank lines perhaps not counted as records."""

    skips_blank: ClassVar[bool]

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
        for lines in read_lines(span):
            for part in lines.parts(nbytes) if nbytes else (lines,):
                yield self._decoded(span, part, decoders, first)
                first += len(part.texts)

    def _decoded(self, span: Span, lines: Lines, decoders: tuple[Any, Any], first: int) -> Block:
        texts = lines.texts
        end = first + len(texts)

        def locate(number: int) -> tuple[int, int]:
            return lines.locate(number - first)

        try:
            return Block(span, Decoded(texts, decoders[0]), range(first, end), end, locate, (), lines.nbytes)
        except MemoryError:
            raise  # of the task as a whole: no line is at fault before it stands alone
        except Exception:  # noqa: BLE001 - the line at fault is found in the slow lane below
            rows, numbers, failures = self._one_by_one(span, lines, decoders[1], first)
            return Block(span, rows, numbers, end, locate, failures, lines.nbytes)

    def _one_by_one(
        self, span: Span, lines: Lines, decode: Callable[[bytes], Any], first: int
    ) -> tuple[Decoded, list[int], list[Failure]]:
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
            except Exception as error:  # noqa: BLE001 - a bad line is an answer, not a crash
                place = lines.locate(at)
                failures.append(unreadable(span, place, first + at, text, error))
        return Decoded(texts, decode, rows), numbers, failures


def unreadable(
    span: Span, place: tuple[int, int], number: int, record: Any, error: Exception | str
) -> Failure:
    """Return the failure of one record that could not be read."""
    kind, message = ("ValueError", error) if isinstance(error, str) else (type(error).__name__, explain(error))
    return Failure(span.input.uri, *place, number, show(record), "read", kind, message)


@dataclass(frozen=True)
class TextSource(LineSource):
    """Lines of UTF-8 text; a record is a `str` without its line ending."""

    kind: ClassVar[str] = "text"
    skips_blank: ClassVar[bool] = False

    def decoders(self) -> tuple[Callable[[bytes], str], Callable[[bytes], str]]:
        """Return the decoder of UTF-8 lines, for both."""
        return _decode_line, _decode_line


def _decode_line(line: bytes) -> str:
    return (line[:-1] if line.endswith(b"\r") else line).decode()
