"""Files of the driver's machine for workers that do not see them, and files of workers back to the driver.

::

    driver   file ──ranges that a chunk needs──> blocks in the object store ──┐ references travel with the task
    worker   open(...) reads of the blocks, one at a time  <──────────────────┘
    worker   piece written to a folder of its own ──bytes──> driver writes it beside the others

No more than a block is held at a time, on either side; the object store has those of the chunks under way.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

from batchflow.core.chunks import Chunk, InputFile, Piece
from batchflow.io.sources import Source
from batchflow.io.sources.paths import FileOverride, open_file, override_files
from batchflow.io.stores.staging import scratch_dir
from batchflow.io.stores.uri import is_uri

BLOCK_BYTES = 16 << 20
"""Bytes of files in one object, at most; what is smaller shares one."""


class Part(NamedTuple):
    """Some bytes of a file, where they lie in a block."""

    start: int
    """In the file."""
    size: int
    block: int
    at: int
    """In the block."""


class Shipment(NamedTuple):
    """Files, or what of them a chunk needs, on their way to a worker."""

    files: Mapping[str, tuple[InputFile, tuple[Part, ...]]]
    """By name, as the source has it."""
    blocks: tuple[Any, ...]
    """References to bytes."""
    problems: Mapping[str, OSError]
    """Files that the driver could not read either."""
    whole: bool
    """Whether all there is of each file came along: one that has become shorter is told by its reader."""


class _Packer:
    """Gathers bytes of files into blocks."""

    def __init__(self, put: Callable[[bytes], Any]) -> None:
        self._put = put
        self._held = bytearray()
        self.blocks: list[Any] = []

    def add(self, file: io.FileIO, start: int, stop: int) -> Iterator[Part]:
        """Take over a range of a file, in one block or in many."""
        file.seek(start)
        while start < stop:
            data = file.read(min(stop - start, BLOCK_BYTES - len(self._held)))
            if not data:
                return  # it has become shorter, which its reader tells
            yield Part(start, len(data), len(self.blocks), len(self._held))
            self._held += data
            start += len(data)
            if len(self._held) == BLOCK_BYTES:
                self.flush()

    def flush(self) -> None:
        """Put what is gathered into the object store."""
        if self._held:
            self.blocks.append(self._put(bytes(self._held)))
            self._held.clear()


def shipped(source: Source, chunk: Chunk, put: Callable[[bytes], Any], *, whole: bool) -> Shipment:
    """Return the files of a chunk as they travel.

    Parameters
    ----------
    put
        Puts bytes into the object store and returns a reference to them.
    whole
        Ship all of each file, since what the source said to need was not enough.
    """
    packer = _Packer(put)
    files: dict[str, tuple[InputFile, tuple[Part, ...]]] = {}
    problems: dict[str, OSError] = {}
    for span in chunk.spans:
        item = span.input
        if is_uri(item.uri):
            continue  # which workers reach by themselves
        parts = list(files.get(item.uri, (item, ()))[1])
        try:
            with open_file(item.uri) as file:
                for start, stop in [(0, item.size)] if whole else source.needs(span):
                    parts += packer.add(file, start, stop)
        except OSError as error:
            problems[item.uri] = error
        files[item.uri] = item, tuple(sorted(parts))
    packer.flush()
    return Shipment(files, tuple(packer.blocks), problems, whole)


class _Shipped(io.RawIOBase):
    """A file that came along, to be read like one on disk; bytes that did not come along cannot be read."""

    def __init__(self, files: Unpacked, size: int, parts: Sequence[Part]) -> None:
        self._files = files
        self._size = size
        self._parts = parts
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read as much as there is, across blocks: some readers take less for the end of the file."""
        view = memoryview(buffer)
        filled = 0
        while filled < len(view):
            data = self._some(len(view) - filled)
            if not len(data):
                self._files.misses(not filled and self._at < self._size)
                break
            view[filled : filled + len(data)] = data
            filled += len(data)
            self._at += len(data)
        return filled

    def _some(self, size: int) -> Any:
        """Return bytes from where the file stands, none where none came along."""
        for part in self._parts:
            if part.start <= self._at < part.start + part.size:
                skip = self._at - part.start
                begin = part.at + skip
                return memoryview(self._files.block(part.block))[begin : begin + min(size, part.size - skip)]
        return b""


class Unpacked:
    """The files of a shipment on a worker; used as a context manager they are what `open_input` opens."""

    def __init__(self, shipment: Shipment, get: Callable[[Any], bytes]) -> None:
        self._shipment = shipment
        self._get = get
        self._last: tuple[int, bytes] | None = None
        self.missed: bool = False
        """Whether bytes were asked for that did not come along."""
        self._folder = ""
        self._opened = ExitStack()

    def misses(self, more: bool) -> None:
        """Note that a reader asked for bytes which did not come along, though they may be there."""
        self.missed |= more and not self._shipment.whole

    def block(self, number: int) -> bytes:
        """Return a block; only the last one asked for is held."""
        if self._last is None or self._last[0] != number:
            self._last = None
            self._last = number, self._get(self._shipment.blocks[number])
        return self._last[1]

    def open(self, uri: str) -> Any:
        """Open a file."""
        problem = self._shipment.problems.get(uri)
        if problem is not None:
            raise problem
        item, parts = self._shipment.files[uri]
        size = item.size
        if self._shipment.whole:  # the file may have become shorter since the plan
            size = max((part.start + part.size for part in parts), default=0)
        return _Shipped(self, size, parts)

    def path(self, uri: str) -> str:
        """Return the path of a copy on this machine, made when it is first asked for."""
        if not self._folder:
            self._folder = self._opened.enter_context(scratch_dir())
        folder = os.path.join(self._folder, str(list(self._shipment.files).index(uri)))
        path = os.path.join(folder, os.path.basename(uri))
        if not os.path.exists(path):
            os.mkdir(folder)
            with open(path, "wb") as copy, self.open(uri) as file:
                while data := file.read(BLOCK_BYTES):
                    copy.write(data)
        return path

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the files opened in the place of those of their names."""
        with self._opened, override_files(dict.fromkeys(self._shipment.files, FileOverride(self.open, self.path))):
            yield


def sees(chunk: Chunk, folder: str) -> bool:
    """Whether this process sees the files of a chunk as the driver does: there, of the same size and time.

    Parameters
    ----------
    folder
        Of the driver, which relative paths start from.
    """
    return all(_is_same(item, folder) for item in {span.input.uri: span.input for span in chunk.spans}.values())


def _is_same(item: InputFile, folder: str) -> bool:
    if is_uri(item.uri):
        return True
    try:
        status = os.stat(os.path.join(folder, item.uri))
    except OSError:
        return not item.version  # the driver could not tell either
    return (status.st_size, str(status.st_mtime_ns)) == (item.size, item.version)


# --- pieces, on their way back --------------------------------------------------------------------------


def read_pieces(pieces: Sequence[Piece]) -> list[bytes]:
    """Return the bytes of pieces, whose files are of no use any more; one without rows has none."""
    found = []
    for piece in pieces:
        data = b""
        if piece.path:
            with open(piece.path, "rb") as file:
                data = file.read()
            os.unlink(piece.path)
        found.append(data)
    return found


def write_pieces(pieces: Sequence[Piece], contents: Sequence[Any], folder: str) -> list[Piece]:
    """Write pieces that came from a worker to the folder of the output, and return them as they are there."""
    written: list[Piece] = []
    try:
        for piece, data in zip(pieces, contents, strict=True):
            path = f"{folder}/{os.path.basename(piece.path)}" if piece.path else ""
            written.append(piece._replace(path=path))
            if path:
                with open(path, "wb") as file:
                    file.write(data)
    except BaseException:
        for piece in written:
            with suppress(OSError):
                os.unlink(piece.path)
        raise
    return written
