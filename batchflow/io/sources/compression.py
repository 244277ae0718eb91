"""Compressed streams: which compression a file has, and its bytes up to the first damage."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, Protocol

_SUFFIXES = {
    ".gz": "gz",
    ".gzip": "gz",
    ".bgz": "gz",
    ".bz2": "bz2",
    ".zst": "zst",
    ".zstd": "zst",
    ".lz4": "lz4",
    ".xz": "xz",
}

_MAGIC = {
    b"\x1f\x8b\x08": "gz",
    b"BZh91AY&SY": "bz2",
    b"\x28\xb5\x2f\xfd": "zst",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ\x00": "xz",
}
_MAGIC_BYTES = 10
_GZIP = 31
"""What `zlib` calls gzip's header and check, and no other."""
_READ_BYTES = 128 << 10
_FIRST_BYTES = 64
_MUCH_BYTES = 4 << 20
"""Bytes that some input gave, after which less is decoded at a time: of a bomb 128 kB would be gigabytes."""

RATIO = 5
"""Bytes of text that a byte of a compressed file is taken for, when sizes are forecast."""


def by_suffix(path: str) -> str | None:
    """Return the compression that a file name promises."""
    dot = path.rfind(".")
    return _SUFFIXES.get(path[dot:].lower()) if dot >= 0 else None


def by_magic(head: bytes) -> str | None:
    """Return the compression that the first bytes of a file show."""
    for magic, compression in _MAGIC.items():
        if head.startswith(magic) or (compression == "bz2" and head[:3] == b"BZh" and head[4:10] == magic[4:]):
            return compression
    return None


class _StreamDecoder(Protocol):
    eof: bool
    unused_data: bytes | None

    def decompress(self, data: bytes, /) -> bytes: ...


def _gz() -> Any:
    from isal import isal_zlib  # only where a file needs it

    return isal_zlib.decompressobj(wbits=_GZIP)


def _bz2() -> Any:
    import bz2  # only where a file needs it

    return bz2.BZ2Decompressor()


def _xz() -> Any:
    import lzma  # only where a file needs it

    return lzma.LZMADecompressor()


def _zst() -> Any:
    import zstandard  # only where a file needs it: it takes 15 ms

    return zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()  # as of ``zstd --long=31``


def _lz4() -> Any:
    import lz4.frame  # only where a file needs it

    return lz4.frame.LZ4FrameDecompressor()


_DECODERS: dict[str, Callable[[], Any]] = {
    "gz": _gz,
    "bz2": _bz2,
    "xz": _xz,
    "zst": _zst,
    "lz4": _lz4,
}

_RESCUERS: dict[str, Callable[[], Any]] = {"gz": lambda: zlib.decompressobj(wbits=_GZIP)}
"""Those that give every byte as soon as it is known, where others are faster."""


class DamagedError(OSError):
    """A compressed file that is truncated or corrupt.

    Attributes
    ----------
    position : int
        Byte of the decompressed text at which the damage begins.
    """

    hopeless = True
    """Another try finds the same."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.position = position


class Decompressed:
    """The decompressed bytes of a file of one or many members, read forwards only.

    Every byte before a damage is given out before `DamagedError` is raised.
    """

    def __init__(self, raw: IO[bytes], compression: str, head: bytes = b"") -> None:
        self._raw = raw
        self._compression = compression
        self._decoder: _StreamDecoder | None = None
        self._member: int | None = None  # byte of the file at which the member begins,
        self._member_at = 0  # and of the text
        self._input = head
        self._step = _FIRST_BYTES
        self._ready = bytearray()
        self._given = 0
        self._damage: DamagedError | None = None

    def read(self, size: int) -> bytes:
        """Return up to this many bytes, fewer only at the end."""
        while len(self._ready) < size and self._damage is None and self._feed():
            pass
        if not self._ready and self._damage is not None:
            raise self._damage
        data = bytes(self._ready[:size])
        del self._ready[:size]
        self._given += len(data)
        return data

    @property
    def ratio(self) -> float:
        """Bytes that came of each byte of the file so far."""
        return (self._given + len(self._ready)) / max(1, self._raw.tell() - len(self._input))

    def close(self) -> None:
        """Close the file below."""
        self._raw.close()

    def _feed(self) -> bool:
        """Decompress some more; false at the end."""
        data = self._input or self._raw.read(_READ_BYTES)
        self._input = b""
        if not data:
            if self._decoder is not None:
                self._damaged("the file ends in the middle of its data: it is truncated")
            return False
        if self._decoder is None:
            if (
                self._member is not None
            ):  # zero bytes after a member are padding, as gzip(1) has it, and so are blanks
                data = data.lstrip(b"\0\r\n\t ")
                if data and not self._is_member(data):
                    self._damaged(f"what follows the {self._compression} data is no {self._compression} data")
                    return False
            if data:
                self._member = self._raw.tell() - len(data)
                self._member_at = self._given + len(self._ready)
                self._decoder = _DECODERS[self._compression]()
        self._input = data[self._step :]
        return not data or self._decode(data[: self._step])

    def _is_member(self, data: bytes) -> bool:
        """Whether another member may begin with some bytes; only gz has one magic for all of them."""
        return self._compression != "gz" or data[:3] == b"\x1f\x8b\x08"[: len(data)]

    def _decode(self, data: bytes) -> bool:
        """Decode some bytes, behind which the rest of the input stands; false at a damage."""
        decoder = self._decoder
        assert decoder is not None
        before = len(self._ready)
        try:
            self._ready += decoder.decompress(data)
        except MemoryError:
            raise  # no damage: the file holds more than there is room for
        except Exception as error:
            self._rescue(self._raw.tell() - len(self._input) - len(data), data)
            if self._given or self._ready:
                self._damaged(f"the compressed data is corrupt: {error}")
            else:
                self._damaged(f"this is not {self._compression} data, whatever its name says: {error}")
            return False
        if decoder.eof:
            self._decoder, self._input = None, (decoder.unused_data or b"") + self._input
        much = len(self._ready) - before > _MUCH_BYTES
        self._step = max(1, self._step // 4) if much else min(_READ_BYTES, self._step * 2)
        return True

    def _rescue(self, at: int, data: bytes) -> None:
        """Decompress what comes before a damage in the bytes that begin at a place of the file.

        A decoder that raises gives nothing of its input, so another one is brought to the same state
        and takes these bytes one by one. It may be one that gives what it knows earlier, or later.
        """
        decoder = _RESCUERS.get(self._compression, _DECODERS[self._compression])()
        known = self._given + len(self._ready) - self._member_at

        def take(some: bytes) -> None:
            nonlocal known
            text = decoder.decompress(some)
            self._ready += text[max(0, known) :]
            known -= len(text)

        self._raw.seek(self._member or 0)
        while (left := at - self._raw.tell()) > 0:
            take(self._raw.read(min(left, _READ_BYTES)))
        with suppress(Exception):
            for byte in data:
                take(bytes([byte]))

    def _damaged(self, message: str) -> None:
        self._damage = DamagedError(message, self._given + len(self._ready))


def open_text(raw: IO[bytes], compression: str | None) -> IO[bytes] | Decompressed:
    """Return the plain bytes of a file that was opened at its start, decompressed by name or by magic."""
    if compression is None:
        head = raw.read(_MAGIC_BYTES)
        compression = by_magic(head)
        if compression is None:
            raw.seek(0)
            return raw
        return Decompressed(raw, compression, head)
    return Decompressed(raw, compression)
