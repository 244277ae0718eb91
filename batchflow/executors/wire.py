"""Objects between processes over a Unix socket: small ones in line, large ones in shared memory.

A frame is a header of 24 bytes (length of the pickle, number of buffers, whether shared memory
follows), the lengths of the buffers, then the pickle and the buffers. Where these are larger than
`INLINE_BYTES` they stand in an anonymous file whose descriptor goes along; the receiver maps it, so
large tables cross with one copy. No frame fills a socket, so neither side can block the other.
"""

from __future__ import annotations

import array
import mmap
import os
import pickle
import socket
import struct
import tempfile
from collections.abc import Sequence
from typing import Any

INLINE_BYTES = 32 << 10
_HEADER = struct.Struct("<QQQ")


class Parcel:
    """A pickled object, ready to be sent to one process or to many, which share its memory."""

    def __init__(self, pickled: bytes, buffers: Sequence[pickle.PickleBuffer] = ()) -> None:
        raw = [buffer.raw() for buffer in buffers]
        self._sizes = struct.pack(f"<{len(raw)}Q", *(part.nbytes for part in raw))
        shared = len(pickled) + sum(part.nbytes for part in raw) > INLINE_BYTES
        self._file = _shared_file([pickled, *raw]) if shared else None
        self._body = b"" if shared else b"".join([pickled, *raw])
        self._header = _HEADER.pack(len(pickled), len(raw), shared)

    def send(self, to: socket.socket) -> None:
        """Send the object; raises `OSError` if the other side is gone."""
        message = self._header + self._sizes + self._body
        if self._file is None:
            to.sendall(message)
        else:
            fds = array.array("i", [self._file]).tobytes()
            sent = to.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            if sent < len(message):
                to.sendall(message[sent:])

    def close(self) -> None:
        """Give the shared memory free, here."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def pack(value: Any) -> Parcel:
    """Return an object as a parcel, its large buffers not copied into the pickle."""
    buffers: list[pickle.PickleBuffer] = []
    return Parcel(pickle.dumps(value, protocol=5, buffer_callback=buffers.append), buffers)


def send(to: socket.socket, value: Any) -> None:
    """Send one object."""
    parcel = pack(value)
    try:
        parcel.send(to)
    finally:
        parcel.close()


def receive(source: socket.socket) -> Any:
    """Return the next object.

    Raises
    ------
    EOFError
        If the other side is gone.
    """
    head, fds = _receive_head(source)
    length, count, shared = _HEADER.unpack(head)
    sizes = struct.unpack(f"<{count}Q", _receive_exactly(source, 8 * count))
    total = length + sum(sizes)
    if shared:
        with_memory = mmap.mmap(fds[0], total, access=mmap.ACCESS_READ)
        os.close(fds[0])
        body = memoryview(with_memory)
    else:
        body = memoryview(_receive_exactly(source, total))
    buffers, at = [], length
    for size in sizes:
        buffers.append(body[at : at + size])
        at += size
    return pickle.loads(body[:length], buffers=buffers)


def _receive_head(source: socket.socket) -> tuple[bytes, list[int]]:
    space = socket.CMSG_SPACE(struct.calcsize("i"))
    data, ancillary, _, _ = source.recvmsg(_HEADER.size, space)
    if not data:
        raise EOFError
    fds: list[int] = []
    for _, _, content in ancillary:
        fds.extend(array.array("i", content))
    return data + _receive_exactly(source, _HEADER.size - len(data)), fds


def _receive_exactly(source: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = source.recv(size)
        if not part:
            raise EOFError
        parts.append(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _shared_file(parts: Sequence[bytes | memoryview]) -> int:
    """Write parts to an anonymous file; it has no name, so nothing is left when its users are gone."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("batchflow", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    for part in parts:
        view = memoryview(part).cast("B")
        while view:
            view = view[os.write(file, view) :]
    return file
