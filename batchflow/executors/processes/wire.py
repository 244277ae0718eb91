"""Messages between driver and worker: over sockets, with large ones in anonymous files.

Calls of flows and their outcomes cross as plain tuples, in a third of the time.
A named tuple tells its class each time it is pickled, and a call is made of seven of them.
"""

from __future__ import annotations

import mmap
import os
import pickle
import selectors
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import starmap
from typing import Any

from batchflow.core.chunks import Key
from batchflow.core.outcomes import Outcome, Stats, Succeeded
from batchflow.core.retry import NEVER
from batchflow.core.serialization import Buffers, LoadedFunction, Pickled, dumps_out_of_band
from batchflow.core.work import ArgumentSlot, Call, StepValue

Lean = tuple[Any, ...]


def lean_call(call: Call) -> Lean:
    """Return a call in its wire form; `full_call` reverses it."""
    return (
        call.key,
        call.fn.pickled,
        _lean(call.arguments),
        [_lean_value(value) for value in call.values],
        [tuple(place) for place in call.places],
        call.when,
        call.seconds,
        call.memory,
        None if call.retry is NEVER else call.retry,
        call.keep,
        call.digests,
    )


def full_call(lean: Lean) -> Call:
    """Return the call of a wire form."""
    key, fn, arguments, values, places, when, seconds, memory, retry, keep, digests = lean
    return Call(
        key,
        LoadedFunction(fn),
        _full(arguments),
        tuple(map(_full_value, values)),
        tuple(starmap(ArgumentSlot, places)),
        when,
        seconds,
        memory,
        NEVER if retry is None else retry,
        keep,
        digests,
    )


def lean_outcome(outcome: Outcome) -> Outcome | Lean:
    """Return an outcome in its wire form: a plain tuple for the value of a call, else unchanged."""
    if not isinstance(outcome, Succeeded) or outcome.printed or not isinstance(outcome.payload, Pickled):
        return outcome
    stats = outcome.stats
    return stats.worker, stats.started, stats.seconds, _lean(outcome.payload), outcome.digest


def full_outcome(lean: Any, key: Key) -> Outcome:
    """Return the outcome of the work with this key."""
    if type(lean) is tuple:
        worker, started, seconds, payload, digest = lean
        return Succeeded(key, Stats(worker, started, seconds), (), _full(payload), (), digest)
    outcome: Outcome = lean._replace(key=key)
    return outcome


def _lean(payload: Any) -> Any:
    """Return the bytes of a pickled value that has no buffers, else the value itself."""
    return payload.pickled if isinstance(payload, Pickled) and not payload.buffers else payload


def _full(payload: Any) -> Any:
    return Pickled(payload) if isinstance(payload, bytes) else payload


def _lean_value(value: StepValue) -> Lean:
    return [_lean(payload) for payload in value.payloads], value.rows, value.earlier


def _full_value(lean: Lean) -> StepValue:
    payloads, rows, earlier = lean
    return StepValue(tuple(map(_full, payloads)), rows, earlier)


INLINE_BYTES = 32 << 10
_SOCKET_BYTES = 128 << 10
"""Minimum socket buffer in one direction: two large frames and the calls sent ahead."""
AWAKE_SECONDS = 0.001
"""Seconds that a waiting process polls before it sleeps."""
_OFTEN = 16
"""Consecutive short waits after which a process polls before it sleeps."""
_READ_BYTES = 64 << 10
_READ_FILES = 16
"""Maximum descriptors per system call; Linux returns those of one message, so one."""
_HEADER = struct.Struct("<QQQQQ")
_ALIGNED = 64
"""Alignment of each buffer in bytes; Arrow warns of other alignments."""


def _gap(size: int) -> int:
    """Return the padding in bytes between an offset and the next buffer."""
    return -size % _ALIGNED


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two connected sockets with large enough buffers, whatever the system's default."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
    return ends


class Message:
    """Pickled object, ready to be sent to one process or to many that share its memory.

    Parameters
    ----------
    pickled, buffers
        As `dumps` returns them.
    permit
        Number of the permit that is needed to open it; 0: none.
    """

    def __init__(self, pickled: bytes, buffers: Sequence[pickle.PickleBuffer] = (), permit: int = 0) -> None:
        parts: list[bytes | memoryview] = [pickled]
        total = len(pickled)
        if buffers:
            raw = [buffer.raw() for buffer in buffers]
            sizes = struct.pack(f"<{len(raw)}Q", *(part.nbytes for part in raw))
            parts.insert(0, sizes)
            total += len(sizes)
            for buffer in raw:
                parts += [bytes(_gap(total)), buffer]
                total += _gap(total) + buffer.nbytes
        shared = total > INLINE_BYTES
        self._file = _shared_file(parts) if shared else None
        header = _HEADER.pack(total, len(pickled), len(buffers), shared, permit)
        self.message: bytes = header if shared else b"".join([header, *parts])

    def send(self, to: socket.socket) -> None:
        """Send the object; raises `OSError` if the other side is gone."""
        if self._file is None:
            to.sendall(self.message)
        else:
            socket.send_fds(to, [self.message], [self._file])

    def close(self) -> None:
        """Close the shared memory in this process."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def pack(value: Any, *, packed: bool = False) -> Message:
    """Pickle an object into a message; raises what `dumps` does.

    Parameters
    ----------
    packed
        Whether all in it that is the user's is packed already. Then what ``__main__`` defines has no
        need to be looked for, and is not taken for the object's own where it stands in a pickle inside.
    """
    if not packed:
        return Message(*dumps_out_of_band(value))
    buffers = Buffers()
    return Message(pickle.dumps(value, protocol=5, buffer_callback=buffers.take), buffers)


def send_together(to: socket.socket, parcels: Iterable[Message]) -> None:
    """Send several small messages with one system call."""
    to.sendall(b"".join([parcel.message for parcel in parcels]))


class GarbledError(EOFError):
    """Invalid frame: another writer used the socket."""


class ReceivedMessage:
    """Received object that is not yet unpickled, since unpickling may run user code."""

    def __init__(self, body: memoryview, length: int, count: int, permit: int) -> None:
        self.permit = permit
        """Number of the start token that it needs; 0: none."""
        self._body = body
        self._length = length
        self._count = count

    def open(self) -> Any:
        """Unpickle the object.

        Raises
        ------
        pickle.UnpicklingError
            If the object cannot be made again; the cause is what it raised.
        """
        start = 8 * self._count
        buffers, at = [], start + self._length
        for size in struct.unpack(f"<{self._count}Q", self._body[:start]):
            at += _gap(at)
            buffers.append(self._body[at : at + size])
            at += size
        try:
            return pickle.loads(self._body[start : start + self._length], buffers=buffers)
        except (Exception, SystemExit) as error:
            message = f"{type(error).__name__}: {error}"
            raise pickle.UnpicklingError(message) from error


class SpinningSelector(selectors.PollSelector):
    """Selector that polls for a moment before it sleeps, after several short waits in a row.

    A message to one that sleeps and its answer take four times as long as to one that is awake, or more. Whoever
    else wants the core gets it meanwhile, and keeps it for longer than from a sleeper: who had to wait for that
    sleeps again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._soon = 0
        """Number of consecutive short waits."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait until a file is ready, or the timeout expires."""
        began = time.monotonic()
        events: list[tuple[selectors.SelectorKey, int]] = []
        if self._soon > _OFTEN:
            until = began + (AWAKE_SECONDS if timeout is None else min(timeout, AWAKE_SECONDS))
            while not (events := super().select(0)) and time.monotonic() < until:
                os.sched_yield()
        events = events or super().select(timeout)
        self._soon = self._soon + 1 if events and time.monotonic() - began < AWAKE_SECONDS else 0
        return events


class MessageReader:
    """Buffered reader of a socket: several small objects per system call.

    Parameters
    ----------
    source
        The socket, from which nobody else reads.
    shares
        Large buffers stay in memory shared with the sender, copied where they are written to; each object
        holds a file descriptor then. Otherwise they are copied at once.
    """

    def __init__(self, source: socket.socket, *, shares: bool = False) -> None:
        self._source = source
        self._shares = shares
        self._arrived = b""
        self._at = 0
        self._files: deque[int] = deque()
        """Received descriptors, in the order of their frames."""

    @property
    def has_whole(self) -> bool:
        """Whether the next object has arrived completely."""
        left = len(self._arrived) - self._at
        if left < _HEADER.size:
            return False
        total, _, _, shared, _ = _HEADER.unpack_from(self._arrived, self._at)
        return bool(shared) or left >= _HEADER.size + total

    def frame(self) -> ReceivedMessage:
        """Wait for the next object.

        Raises
        ------
        EOFError
            If the other side is gone; a `GarbledError` if it has not kept to this format.
        """
        try:
            total, length, count, shared, permit = _HEADER.unpack(self._next(_HEADER.size))
            if not _is_sound(total, length, count, shared) or (shared and not self._files):
                raise GarbledError
            data: Any = self._file(total) if shared else self._next(total)
        except OSError as error:
            raise EOFError from error
        except ValueError as error:
            raise GarbledError from error  # a file that is shorter than that
        body = memoryview(bytearray(data) if count and not shared else data)  # arrays may be written to
        return ReceivedMessage(body, length, count, permit)

    def receive(self) -> Any:
        """Wait for the next object and return it; raises what `frame` and `ReceivedMessage.open` do."""
        return self.frame().open()

    def _next(self, size: int) -> bytes:
        while len(self._arrived) - self._at < size:
            more, files, _, _ = socket.recv_fds(self._source, _READ_BYTES, _READ_FILES)
            if not more:
                raise EOFError
            self._arrived = self._arrived[self._at :] + more
            self._at = 0
            for file in files:
                os.set_inheritable(file, False)  # else a child of the user's function has it too
            self._files += files
        start, self._at = self._at, self._at + size
        return self._arrived[start : self._at]

    def _file(self, total: int) -> mmap.mmap:
        file = self._files.popleft()
        try:
            return mmap.mmap(file, total, access=mmap.ACCESS_COPY) if self._shares else _copied(file, total)
        finally:
            os.close(file)

    def close(self) -> None:
        """Close the descriptors of unread objects."""
        while self._files:
            os.close(self._files.pop())


def _is_sound(total: int, length: int, count: int, shared: int) -> bool:
    """Whether a header is valid; text written to the socket is not."""
    return shared == (total > INLINE_BYTES) and 8 * count + length <= total


def _copied(file: int, size: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE)
    with memoryview(memory) as view:
        at = 0
        while at < size:
            at += os.preadv(file, [view[at:]], at)
    return memory


def anonymous_file() -> int:
    """Return the descriptor of an unnamed file, which disappears with its last user."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("batchflow", os.MFD_CLOEXEC)
    import tempfile  # only where there is no memfd

    with tempfile.TemporaryFile() as temporary:
        return os.dup(temporary.fileno())


def _shared_file(parts: Iterable[bytes | memoryview]) -> int:
    file = anonymous_file()
    for part in parts:
        view = memoryview(part).cast("B")
        while view:
            view = view[os.write(file, view) :]
    return file
