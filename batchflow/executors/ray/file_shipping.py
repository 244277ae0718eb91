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
"""Maximum bytes of files in one object; smaller files share one."""


class Part(NamedTuple):
    """Range of a file in a block."""

    start: int
    """Offset in the file."""
    size: int
    block: int
    at: int
    """Offset in the block."""


class Shipment(NamedTuple):
    """Files, or the ranges of them that a chunk needs, on their way to a worker."""

    files: Mapping[str, tuple[InputFile, tuple[Part, ...]]]
    """Files by their name in the source."""
    blocks: tuple[Any, ...]
    """References to the blocks."""
    problems: Mapping[str, OSError]
    """Read errors of the driver by file."""
    whole: bool
    """Whether complete files were sent; a truncated file is reported by its reader."""


class _Packer:
    """Buffer that gathers file ranges into blocks."""

    def __init__(self, put: Callable[[bytes], Any]) -> None:
        self._put = put
        self._held = bytearray()
        self.blocks: list[Any] = []

    def add(self, file: io.FileIO, start: int, stop: int) -> Iterator[Part]:
        """Add a range of a file, in one block or in several."""
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
        """Put the gathered bytes into the object store."""
        if self._held:
            self.blocks.append(self._put(bytes(self._held)))
            self._held.clear()


def shipped(source: Source, chunk: Chunk, put: Callable[[bytes], Any], *, whole: bool) -> Shipment:
    """Put the files of a chunk into the object store, and return the shipment.

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
    """Received file, readable like one on disk except for ranges that were not sent."""

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
        """Read as much as available, across blocks: some readers treat a short read as the end of the file."""
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
        """Return bytes at the current offset, none if they were not sent."""
        for part in self._parts:
            if part.start <= self._at < part.start + part.size:
                skip = self._at - part.start
                begin = part.at + skip
                return memoryview(self._files.block(part.block))[begin : begin + min(size, part.size - skip)]
        return b""


class Unpacked:
    """Files of a shipment on a worker; as a context manager, the files that `open_input` opens."""

    def __init__(self, shipment: Shipment, get: Callable[[Any], bytes]) -> None:
        self._shipment = shipment
        self._get = get
        self._last: tuple[int, bytes] | None = None
        self.missed: bool = False
        """Whether a reader asked for bytes that were not sent."""
        self._folder = ""
        self._opened = ExitStack()

    def misses(self, more: bool) -> None:
        """Record a read of bytes that were not sent."""
        self.missed |= more and not self._shipment.whole

    def block(self, number: int) -> bytes:
        """Return a block; only the last one is cached."""
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
        """Return the path of a local copy, created on first use."""
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
        """Open the shipped files instead of those of the same names."""
        with self._opened, override_files(dict.fromkeys(self._shipment.files, FileOverride(self.open, self.path))):
            yield


def sees(chunk: Chunk, folder: str) -> bool:
    """Whether this process sees the files of a chunk as the driver does, by size and modification time.

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
    """Return the bytes of pieces and delete their files; a piece without rows has none."""
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
    """Write pieces from a worker to the folder of the output, and return them with their new paths."""
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
