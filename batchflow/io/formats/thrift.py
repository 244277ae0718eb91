"""Apache Thrift's compact protocol, as far as the footers of Parquet files use it.

The format is defined by Thrift's specification of the compact protocol,
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
Nothing here knows the structs of Parquet: fields nobody has heard of are kept as they are, and what
was decoded is encoded to the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from struct import pack, unpack
from typing import Any, ClassVar, NamedTuple, TypeAlias


class Type(IntEnum):
    """Types on the wire."""

    TRUE = 1
    """In the header of a field, the value itself; in the header of a list, a boolean."""
    FALSE = 2
    I8 = 3
    I16 = 4
    I32 = 5
    I64 = 6
    DOUBLE = 7
    BINARY = 8
    LIST = 9
    STRUCT = 12


Struct: TypeAlias = dict[int, tuple[int, Any]]
"""Type and value of each field, by its id, in the order of the bytes."""

_BOOLEANS = (Type.TRUE, Type.FALSE)
_LONG = 15  # in the header of a list: the size stands after it


class Elements(NamedTuple):
    """A list."""

    type: int
    """Of every element."""
    items: list[Any]


def decode(data: bytes) -> Struct:
    """Return the struct that some bytes begin with.

    Raises
    ------
    ValueError
        If they begin with none.
    """
    try:
        return _ThriftDecoder(data).read_struct()
    except IndexError:
        message = "a Thrift struct is cut off"
        raise ValueError(message) from None
    except RecursionError:
        message = "a Thrift struct is nested too deep"
        raise ValueError(message) from None


def encode(fields: Struct) -> bytes:
    """Return the bytes of a struct; structs in it may be given as their bytes."""
    out = bytearray()
    _put_struct(out, fields)
    return bytes(out)


class _ThriftDecoder:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def read_struct(self) -> Struct:
        fields: Struct = {}
        field = 0
        while header := self._byte():
            delta, kind = divmod(header, 16)
            field = field + delta if delta else self._integer()
            fields[field] = kind, (kind == Type.TRUE if kind in _BOOLEANS else self._value(kind))
        return fields

    def _value(self, kind: int) -> Any:
        if kind not in self._READERS:
            message = f"no Thrift type of a Parquet footer has the number {kind}"
            raise ValueError(message)
        return self._READERS[kind](self)

    def _byte(self) -> int:
        byte = self._data[self._position]
        self._position += 1
        return byte

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 64, 7):
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        message = "a Thrift integer has more than 64 bits"
        raise ValueError(message)

    def _integer(self) -> int:
        zigzag = self._varint()
        return (zigzag >> 1) ^ -(zigzag & 1)

    def _boolean(self) -> bool:
        return self._byte() == Type.TRUE

    def _i8(self) -> int:
        return int.from_bytes(self._take(1), signed=True)

    def _double(self) -> float:
        value: float = unpack("<d", self._take(8))[0]
        return value

    def _binary(self) -> bytes:
        return self._take(self._varint())

    def _take(self, size: int) -> bytes:
        start, self._position = self._position, self._position + size
        if self._position > len(self._data):
            raise IndexError
        return self._data[start : self._position]

    def _elements(self) -> Elements:
        size, kind = divmod(self._byte(), 16)
        if size == _LONG:
            size = self._varint()
        return Elements(kind, [self._value(kind) for _ in range(size)])

    _READERS: ClassVar[dict[int, Callable[[_ThriftDecoder], Any]]] = {
        Type.TRUE: _boolean,
        Type.FALSE: _boolean,
        Type.I8: _i8,
        Type.I16: _integer,
        Type.I32: _integer,
        Type.I64: _integer,
        Type.DOUBLE: _double,
        Type.BINARY: _binary,
        Type.LIST: _elements,
        Type.STRUCT: read_struct,
    }


def _put_struct(out: bytearray, fields: Struct | bytes) -> None:
    if isinstance(fields, bytes):
        out += fields
        return
    last = 0
    for field, (kind, value) in fields.items():
        if 0 < field - last < 16:
            out.append((field - last) << 4 | kind)
        else:
            out.append(kind)
            _put_integer(out, field)
        if kind not in _BOOLEANS:
            _WRITERS[kind](out, value)
        last = field
    out.append(0)


def _put_varint(out: bytearray, value: int) -> None:
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _put_integer(out: bytearray, value: int) -> None:
    _put_varint(out, value << 1 ^ value >> 63)


def _put_boolean(out: bytearray, value: bool) -> None:
    out.append(Type.TRUE if value else Type.FALSE)


def _put_i8(out: bytearray, value: int) -> None:
    out += value.to_bytes(1, signed=True)


def _put_double(out: bytearray, value: float) -> None:
    out += pack("<d", value)


def _put_binary(out: bytearray, value: bytes) -> None:
    _put_varint(out, len(value))
    out += value


def _put_elements(out: bytearray, elements: Elements) -> None:
    kind, items = elements
    if len(items) < _LONG:
        out.append(len(items) << 4 | kind)
    else:
        out.append(_LONG << 4 | kind)
        _put_varint(out, len(items))
    for item in items:
        _WRITERS[kind](out, item)


_WRITERS: dict[int, Callable[[bytearray, Any], None]] = {
    Type.TRUE: _put_boolean,
    Type.FALSE: _put_boolean,
    Type.I8: _put_i8,
    Type.I16: _put_integer,
    Type.I32: _put_integer,
    Type.I64: _put_integer,
    Type.DOUBLE: _put_double,
    Type.BINARY: _put_binary,
    Type.LIST: _put_elements,
    Type.STRUCT: _put_struct,
}
