"""Parquet files, end to end in one file, without decoding them.

The bytes of the row groups are copied as they are. Only the footer is made anew, as it says where in
the file every column chunk begins. Fields are numbered by
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

from batchflow.io.formats.thrift import Elements, Struct, Type, decode, encode

_MAGIC = b"PAR1"
_MAGIC_ENCRYPTED = b"PARE"
_TAIL = 8  # bytes: the size of the footer and the magic
_BLOCK = 1 << 20  # smaller and larger reads copied slower, and so did sendfile and copy_file_range
_MAX_ORDINAL = (1 << 15) - 1


class _FileMetaData(IntEnum):
    SCHEMA = 2
    NUM_ROWS = 3
    ROW_GROUPS = 4
    KEY_VALUE_METADATA = 5
    COLUMN_ORDERS = 7
    ENCRYPTION_ALGORITHM = 8


class _KeyValue(IntEnum):
    KEY = 1
    VALUE = 2


class _RowGroup(IntEnum):
    COLUMNS = 1
    NUM_ROWS = 3
    FILE_OFFSET = 5
    ORDINAL = 7


class _ColumnChunk(IntEnum):
    FILE_PATH = 1
    FILE_OFFSET = 2
    META_DATA = 3


class _PageIndex(IntEnum):
    """Where the page index of a column chunk is; fields of the column chunk."""

    OFFSET_INDEX_OFFSET = 4
    OFFSET_INDEX_LENGTH = 5
    COLUMN_INDEX_OFFSET = 6
    COLUMN_INDEX_LENGTH = 7


class _ColumnMetaData(IntEnum):
    """Where the parts of a column chunk are, or 0 for those it does not have."""

    DATA_PAGE_OFFSET = 9
    INDEX_PAGE_OFFSET = 10
    DICTIONARY_PAGE_OFFSET = 11
    BLOOM_FILTER_OFFSET = 14


def splice(sources: Sequence[str], destination: BinaryIO) -> int:
    """Write the row groups of Parquet files, in order, as one Parquet file.

    Statistics and Bloom filters are kept, page indexes are not. Everything else about the file, such as
    its key-value metadata, is that of the first source. Nothing is written if a footer is refused.

    Parameters
    ----------
    sources
        Paths of Parquet files with one and the same schema.
    destination
        A binary file open for writing, at its start.

    Returns
    -------
    int
        The number of rows.

    Raises
    ------
    ValueError
        If there is no source, if schemas differ, or if a source is encrypted or no whole Parquet file.
    """
    if not sources:
        message = "no Parquet files to put together"
        raise ValueError(message)
    footer = _Footer()
    sizes = [footer.add(source) for source in sources]
    destination.write(_MAGIC)
    for source, size in zip(sources, sizes, strict=True):
        _copy(source, size, destination)
    encoded = footer.encoded()
    destination.write(encoded + len(encoded).to_bytes(4, "little") + _MAGIC)
    return footer.rows


class _Footer:
    """Of the whole file. Row groups are held encoded, decoded ones are many times as large."""

    def __init__(self) -> None:
        self.rows = 0
        self._first: Struct = {}
        self._groups: list[bytes] = []
        self._shift = 0

    def add(self, source: str) -> int:
        """Add the row groups of a file and return the size of its data in bytes."""
        with _naming(source):
            fields, size = _read_footer(source)
            self._first = self._first or fields
            if _table(fields) != _table(self._first):
                message = "its schema differs from that of the first file"
                raise ValueError(message)
            self.rows += _get(fields, _FileMetaData.NUM_ROWS, Type.I64)
            for group in _structs(fields, _FileMetaData.ROW_GROUPS):
                self._add_group(group)
        self._shift += size
        return size

    def _add_group(self, group: Struct) -> None:
        # pyarrow writes a row group for a table without rows, and 0 as the offset of its data pages
        if not _get(group, _RowGroup.NUM_ROWS, Type.I64):
            return
        _move_group(group, self._shift)
        group.pop(_RowGroup.ORDINAL, None)
        if len(self._groups) <= _MAX_ORDINAL:
            group[_RowGroup.ORDINAL] = Type.I16, len(self._groups)
        self._groups.append(encode(group))

    def encoded(self) -> bytes:
        groups = Elements(Type.STRUCT, self._groups)
        whole = dict(self._first)
        whole[_FileMetaData.NUM_ROWS] = Type.I64, self.rows
        whole[_FileMetaData.ROW_GROUPS] = Type.LIST, groups
        return encode(whole)


@contextmanager
def _naming(source: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        message = f"{source}: {error}"
        raise ValueError(message) from error


def _read_footer(source: str) -> tuple[Struct, int]:
    """Return the footer of a file, and how many bytes stand between the magic and the footer."""
    with Path(source).open("rb") as file:
        head = file.read(len(_MAGIC))
        end = file.seek(0, os.SEEK_END) - _TAIL
        file.seek(max(end, 0))
        tail = file.read()
        if tail.endswith(_MAGIC_ENCRYPTED):
            message = "its footer is encrypted"
            raise ValueError(message)
        start = end - int.from_bytes(tail[:4], "little")
        if start < len(_MAGIC) or not (head == tail[4:] == _MAGIC):
            message = "it is no Parquet file, or a part of one"
            raise ValueError(message)
        file.seek(start)
        footer = decode(file.read(end - start))
    # the ordinal of a row group takes part in the encryption of its columns
    if _FileMetaData.ENCRYPTION_ALGORITHM in footer:
        message = "its columns are encrypted"
        raise ValueError(message)
    return footer, start - len(_MAGIC)


def _table(footer: Struct) -> tuple[object, ...]:
    """Return what a reader needs to understand the columns, and so must be the same in all files."""
    metadata = {}
    if _FileMetaData.KEY_VALUE_METADATA in footer:
        for entry in _structs(footer, _FileMetaData.KEY_VALUE_METADATA):
            metadata[_get(entry, _KeyValue.KEY, Type.BINARY)] = entry.get(_KeyValue.VALUE)
    schema = _structs(footer, _FileMetaData.SCHEMA)
    return schema, footer.get(_FileMetaData.COLUMN_ORDERS), metadata.get(b"ARROW:schema")


def _move_group(group: Struct, shift: int) -> None:
    _move(group, _RowGroup.FILE_OFFSET, shift)
    for chunk in _structs(group, _RowGroup.COLUMNS):
        if _ColumnChunk.FILE_PATH in chunk:
            message = "its column chunks are in other files"
            raise ValueError(message)
        # an offset index holds offsets itself; readers do without it
        for field in _PageIndex:
            chunk.pop(field, None)
        _move(chunk, _ColumnChunk.FILE_OFFSET, shift)
        for offset in _ColumnMetaData:
            _move(_get(chunk, _ColumnChunk.META_DATA, Type.STRUCT), offset, shift)


def _move(fields: Struct, offset: IntEnum, shift: int) -> None:
    if offset in fields and (position := _get(fields, offset, Type.I64)):
        fields[offset] = Type.I64, position + shift


def _get(fields: Struct, field: IntEnum, kind: Type) -> Any:
    found, value = fields.get(field, (None, None))
    if found != kind:
        message = f"its footer has no valid {field.name.lower()}"
        raise ValueError(message)
    return value


def _structs(fields: Struct, field: IntEnum) -> list[Struct]:
    elements: Elements = _get(fields, field, Type.LIST)
    if elements.items and elements.type != Type.STRUCT:
        message = f"its footer has no valid {field.name.lower()}"
        raise ValueError(message)
    return elements.items


def _copy(source: str, size: int, destination: BinaryIO) -> None:
    with Path(source).open("rb", buffering=0) as file:
        file.seek(len(_MAGIC))
        while size:
            block = file.read(min(_BLOCK, size))
            if not block:
                message = f"{source}: it has become shorter while it was copied"
                raise ValueError(message)
            destination.write(block)
            size -= len(block)
