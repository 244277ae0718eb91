"""What the first bytes of a file are if they are not text: archives, other formats, other encodings."""

from __future__ import annotations

from batchflow.io.sources.compression import by_magic

HEAD_BYTES = 4096
"""Bytes of a file that are looked at."""

_UNPACK = "extract its files and read those"
_TAR_OFFSET, _TAR = 257, b"ustar"
_FORMATS: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"PK\x03\x04", "a zip archive or an Office document", _UNPACK),
    (0, b"PK\x05\x06", "an empty zip archive", _UNPACK),
    (_TAR_OFFSET, _TAR, "a tar archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a rar archive", _UNPACK),
    (0, b"PAR1", "a Parquet file", "use read_parquet (--read parquet)"),
    (0, b"ARROW1\x00\x00", "an Arrow file", "read it with pyarrow and pass the table to bf.records()"),
    (0, b"ORC", "an ORC file", "read it with pyarrow and pass the table to bf.records()"),
    (0, b"Obj\x01", "an Avro file", "convert it to Parquet or JSON Lines"),
    (0, b"SQLite format 3\x00", "an SQLite database", "export its tables as CSV"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", "save it as CSV"),
    (0, b"%PDF-", "a PDF document", "extract its text"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file", "read it with h5py and pass the records to bf.records()"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image", "use files"),
    (0, b"\xff\xd8\xff", "a JPEG image", "use files"),
    (0, b"\x7fELF", "a program", "name the text files only"),
)
_STARTS = tuple(magic for offset, magic, *_ in _FORMATS if offset == 0)
"""Compared in one call, since each small file is checked."""
_MARKS = (  # that of UTF-32 begins as that of UTF-16 does
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_LEAST_ZEROS = 4
_FEW, _MANY, _NEARLY_ALL = 0.05, 0.5, 0.9
"""Shares of zero bytes at every second or fourth position, which show wide characters."""


class NotTextError(OSError):
    """A file that is not the text it is read as."""

    hopeless = True
    """Another attempt finds the same."""


def check_text(head: bytes, *, encoded: bool = False, decompressed: bool = False) -> None:
    """Refuse a file whose first bytes show that it holds no text in UTF-8.

    Parameters
    ----------
    head
        The first bytes, a few thousand at most are looked at.
    encoded
        Whether an encoding was named: zero bytes may be part of it.
    decompressed
        Whether the bytes come from a compressed file.

    Raises
    ------
    NotTextError
        With what the file is, and what to do.
    """
    if head.startswith(_STARTS) or head.startswith(_TAR, _TAR_OFFSET):
        _refuse_format(head)
    if decompressed and (inner := by_magic(head)):
        message = f"the file is compressed twice ({inner} inside): decompress it once, then read the result"
        raise NotTextError(message)
    if encoded:
        return
    guess = next((name for mark, name in _MARKS if head.startswith(mark)), None) or _wide(head[:HEAD_BYTES])
    if guess:
        message = f"the text is {guess}, not UTF-8: pass encoding={guess!r} (--encoding {guess})"
        raise NotTextError(message)


def _refuse_format(head: bytes) -> None:
    """Raise `NotTextError` if the first bytes are those of another format."""
    for offset, magic, name, cure in _FORMATS:
        if head.startswith(magic, offset) and not (magic == b"ORC" and b"\0" not in head[:64]):
            message = f"this is {name}, not text: {cure}"
            raise NotTextError(message)


def _wide(head: bytes) -> str | None:
    """Return the encoding of text in characters of two or four bytes without a byte order mark."""
    count = head.count(0)
    if count < _LEAST_ZEROS:
        return None
    shares = [head[at::4].count(0) / len(head[at::4]) for at in range(4)]
    if min(shares[2:]) > _NEARLY_ALL and shares[0] < _FEW:
        return "utf-32-le"
    if min(shares[:2]) > _NEARLY_ALL and shares[3] < _FEW:
        return "utf-32-be"
    even, odd = (shares[0] + shares[2]) / 2, (shares[1] + shares[3]) / 2
    if odd > _MANY and even < _FEW:
        return "utf-16-le"
    return "utf-16-be" if even > _MANY and odd < _FEW else None
