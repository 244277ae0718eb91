"""Pickled values with out-of-band buffers, and functions unpickled once per process."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from batchflow.core import pickle_by_value as pickling
from batchflow.core.bootstrap import LOADING

_BUFFER_BYTES = 4 << 10
"""Minimum size of an out-of-band buffer; a smaller one costs less to copy into the pickle."""
_MAIN = b"__main__"
_CHILD = b"__mp_main__"
"""Name of ``__main__`` in a spawned `multiprocessing` process."""

LeaveOut = Callable[[Any], Any]
"""Callback for each object in a value: a result other than ``None`` replaces the object in the pickle."""


class Buffers(list[pickle.PickleBuffer]):
    """Large buffers of a pickle that are not copied into it."""

    least: int = _BUFFER_BYTES
    """Minimum size of a large buffer in bytes."""

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """Accept a large buffer as a ``buffer_callback``; true leaves a small one in the pickle."""
        if buffer.raw().nbytes < self.least:
            return True
        self.append(buffer)
        return False

    @property
    def writable(self) -> bytes:
        """One byte per buffer: 1 if its owner may write to it, else 0."""
        return bytes(not buffer.raw().readonly for buffer in self)


def private_buffers(buffers: Sequence[Any], writable: Sequence[int], *, shared: bool = False) -> list[Any]:
    """Return buffers for a value that may write to them.

    Parameters
    ----------
    buffers
        Buffers as received.
    writable
        Flags of `Buffers.writable`; read-only buffers need no copy.
    shared
        Whether something else in this process uses the buffers.
    """
    return [
        _read_only(buffer) if not writes else bytearray(buffer) if shared or _is_foreign(buffer) else buffer
        for buffer, writes in zip(buffers, writable, strict=True)
    ]


def _read_only(buffer: Any) -> memoryview:
    return (buffer.raw() if isinstance(buffer, pickle.PickleBuffer) else memoryview(buffer)).toreadonly()


def _is_foreign(buffer: Any) -> bool:
    """Whether memory is read-only, or belongs to a value in this process that was not sent."""
    return isinstance(buffer, pickle.PickleBuffer) or memoryview(buffer).readonly


def copied(value: Any) -> Any:
    """Return a copy as another process would receive it; the value itself if it cannot be pickled."""
    buffers = Buffers()
    try:
        data = pickle.dumps(value, protocol=5, buffer_callback=buffers.take)
    except Exception:
        return value
    return pickle.loads(data, buffers=private_buffers(buffers, buffers.writable))


def dumps_out_of_band(
    value: Any, leave_out: LeaveOut | None = None, *, by_reference: bool = True, least: int = _BUFFER_BYTES
) -> tuple[bytes, Buffers]:
    """Pickle an object with its large buffers apart; definitions in ``__main__`` are pickled by value.

    Parameters
    ----------
    leave_out
        Callback that replaces objects.
    by_reference
        Whether importable functions and classes are pickled by reference, even those of a module registered
        for pickling by value. The by-value pickler then need not be loaded.
    least
        Minimum size of a large buffer in bytes.

    Raises
    ------
    Exception
        Any exception of an object that cannot be pickled.
    """
    buffers = Buffers()
    buffers.least = least
    try:
        pickled = _dumped(pickle.Pickler, value, buffers, leave_out) if by_reference else _MAIN
    except Exception:
        pickled = _MAIN
    if _MAIN in pickled or _CHILD in pickled:  # no other process has its definitions
        buffers.clear()
        pickled = _dumped(pickling.by_value_pickler(), value, buffers, leave_out)
    return pickled, buffers


def _dumped(kind: Any, value: Any, buffers: Buffers, leave_out: LeaveOut | None) -> bytes:
    if leave_out is None and kind is pickle.Pickler:
        return pickle.dumps(value, protocol=5, buffer_callback=buffers.take)  # half the time of a pickler
    file = io.BytesIO()
    if leave_out is None:
        kind(file, protocol=5, buffer_callback=buffers.take).dump(value)
    else:
        _leaving_out(kind)(leave_out, file, protocol=5, buffer_callback=buffers.take).dump(value)
    return file.getvalue()


@cache
def _leaving_out(kind: Any) -> Any:
    """Return a pickler class that calls back for objects to leave out."""

    class OmittingPickler(kind):  # type: ignore[misc]
        def __init__(self, leave_out: LeaveOut, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._leave_out = leave_out

        def persistent_id(self, value: Any) -> Any:
            return self._leave_out(value)

    return OmittingPickler


class _Unpickler(pickle.Unpickler):
    def __init__(self, find: Callable[[Any], Any], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._find = find

    def persistent_load(self, place: Any) -> Any:
        return self._find(place)


class Pickled:
    """Pickled value in transit; intermediaries pass it on without unpickling it."""

    __slots__ = ("_is_opened", "buffers", "pickled", "writable")

    def __init__(self, pickled: bytes, buffers: Sequence[Any] = (), writable: bytes = b"") -> None:
        self.pickled: bytes = pickled
        self.buffers: Sequence[Any] = buffers
        self.writable: bytes = writable
        """Flags of `Buffers.writable`."""
        self._is_opened = False

    @property
    def nbytes(self) -> int:
        """Size in memory, in bytes."""
        return len(self.pickled) + sum(pickle.PickleBuffer(buffer).raw().nbytes for buffer in self.buffers)

    @property
    def digest(self) -> str:
        """SHA-256 hash of the pickle and its buffers."""
        import hashlib  # 3 ms, only if needed

        total = hashlib.sha256(self.pickled)
        for buffer in self.buffers:
            total.update(pickle.PickleBuffer(buffer).raw())
        return total.hexdigest()

    def open(self, find: Callable[[Any], Any] | None = None) -> Any:
        """Return a copy of the value, so that writes to it reach no other step.

        Parameters
        ----------
        find
            Returns the objects that were left out.
        """
        buffers = self.buffers
        if buffers:
            buffers = private_buffers(buffers, self.writable, shared=self._is_opened)
            self._is_opened = True
        if find is None:
            return pickle.loads(self.pickled, buffers=buffers)
        return _Unpickler(find, io.BytesIO(self.pickled), buffers=buffers).load()

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        outside = pickle.PickleBuffer if protocol >= 5 else bytes
        buffers = zip(self.buffers, self.writable, strict=True)
        outsides = [outside(buffer if writes else _read_only(buffer)) for buffer, writes in buffers]
        return Pickled, (self.pickled, outsides, self.writable)


def pickle_value(value: Any, leave_out: LeaveOut | None = None) -> Pickled:
    """Pickle a value; raises what `dumps` raises."""
    pickled, buffers = dumps_out_of_band(value, leave_out)
    return Pickled(pickled, buffers, buffers.writable)


def pack_shared(value: Any, *, by_reference: bool = True) -> Pickled:
    """Pickle a value with all its arrays out of band and read-only, so that processes can share them."""
    pickled, buffers = dumps_out_of_band(value, by_reference=by_reference, least=0)
    return Pickled(pickled, buffers, bytes(len(buffers)))


class PickledFunction:
    """Function that is pickled once, however many steps call it."""

    __slots__ = ("_pickled", "fn")

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn: Callable[..., Any] = fn
        self._pickled: bytes | None = None

    @property
    def pickled(self) -> bytes:
        """Pickle of the function; raises if it cannot be pickled."""
        if self._pickled is None:
            try:
                self._pickled = self._dumped()
            except Exception:
                if not pickling.files:
                    raise
                with pickling.files_by_reference():  # for a file with a lock or a connection at its top level
                    self._pickled = self._dumped()
        return self._pickled

    def _dumped(self) -> bytes:
        pickled, buffers = dumps_out_of_band(self.fn, by_reference=not pickling.has_modules_by_value())
        return pickling.dumps_by_value(self.fn) if buffers else pickled  # sent in one piece

    def __reduce__(self) -> tuple[Any, ...]:
        return LoadedFunction, (self.pickled,)


_KEPT = 256
"""Maximum number of functions cached by a process."""
_functions: dict[bytes, Callable[..., Any]] = {}


def forget_functions() -> None:
    """Clear the cache of functions, since their modules may have changed."""
    _functions.clear()


class LoadedFunction:
    """Function received from another process: unpickled on first use and cached."""

    __slots__ = ("pickled",)

    def __init__(self, pickled: bytes) -> None:
        self.pickled: bytes = pickled

    @property
    def fn(self) -> Callable[..., Any]:
        """Unpickled function; raises what user code raises while unpickling."""
        fn = _functions.pop(self.pickled, None) or self._load()
        _functions[self.pickled] = fn  # the most recently used function comes last
        if len(_functions) > _KEPT:
            del _functions[next(iter(_functions))]
        return fn

    def _load(self) -> Callable[..., Any]:
        LOADING.append(None)
        try:
            fn: Callable[..., Any] = pickle.loads(self.pickled)
        finally:
            LOADING.pop()
        pickling.define_main(fn)
        return fn

    def __reduce__(self) -> tuple[Any, ...]:
        return LoadedFunction, (self.pickled,)
