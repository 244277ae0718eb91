"""Encodings of text files: which of them can be cut as bytes, and the others as a stream of UTF-8."""

from __future__ import annotations

import codecs
from functools import cache
from importlib import import_module
from typing import Any

from batchflow.core.text import did_you_mean
from batchflow.errors import FormatError
from batchflow.io.sources.compression import DamagedError

UTF8 = "utf-8"
_COMMON = ("utf-8", "latin-1", "cp1252", "utf-16", "utf-32", "shift_jis", "gb18030", "big5", "euc_kr", "koi8-r")
_ASCII = bytes(range(128)).decode()


def check_encoding(name: str) -> str:
    """Return the one name of an encoding.

    Raises
    ------
    FormatError
        If Python has no text encoding of this name.
    """
    try:
        info = codecs.lookup(name)
        "".encode(name)  # refuses what is no encoding of text: hex, zlib
    except (LookupError, TypeError) as error:
        message = f"unknown encoding {name!r}: use a name such as {', '.join(_COMMON[:4])}"
        raise FormatError(message + did_you_mean(str(name), _COMMON)) from error
    return UTF8 if info.name in ("utf-8-sig", "ascii") else info.name  # ASCII is UTF-8


@cache
def is_ascii_based(encoding: str) -> bool:
    """Whether every byte is a character, and ASCII is ASCII: line feeds and quotes are found among the bytes."""
    if encoding in (UTF8, "iso8859-1"):
        return True
    try:
        module: Any = import_module(f"encodings.{encoding.replace('-', '_')}")
    except ImportError:
        return False
    return str(getattr(module, "decoding_table", "")).startswith(_ASCII)


class Transcoded:
    """The text of a stream in UTF-8, read forwards only.

    Text before a byte that is not of the encoding is returned before `DamagedError` is raised.
    """

    def __init__(self, stream: Any, encoding: str) -> None:
        self._stream = stream
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._done = self._bytes_read = 0
        self._error: DamagedError | None = None

    def read(self, size: int) -> bytes:
        """Return some text, about this many bytes of it; nothing at the end."""
        text, data = b"", b" "
        while not text and data and self._error is None:
            data = self._stream.read(size)
            text, self._error = self._decoded(data)
            self._bytes_read += len(data)
        if self._error is not None and not text:
            raise self._error
        self._done += len(text)
        return text

    def _decoded(self, data: bytes) -> tuple[bytes, DamagedError | None]:
        before = self._decoder.getstate()
        try:
            return self._decoder.decode(data, final=not data).encode(), None
        except UnicodeDecodeError as error:
            good = max(0, error.start - len(before[0]))
            at = self._bytes_read + good
            self._decoder.setstate(before)
            text = self._decoder.decode(data[:good]).encode()
            what = f"byte {at:,} of the text is not {self._encoding} ({error.reason})"
            message = f"{what}: pass encoding= (--encoding) as the file was written"
            return text, DamagedError(message, self._done + len(text))

    def close(self) -> None:
        """Close the stream below."""
        self._stream.close()
