"""What a function does, as a few digits: other digits mean that it was changed.

Told from compiled code, so comments and formatting do not count. Followed are the functions and
classes of the same module that it names, its defaults, and what it closes over; what it imports
counts by name only.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

_DIGITS = 16
_PLAIN = (int, float, complex, str, bytes, bool, range, type(None), type(...))


def fingerprint(*values: Any) -> str:
    """Return the digits of functions, or of any other values, together."""
    total = hashlib.sha256()
    for text in _Walk(_home(values)).tell(values):
        total.update(text.encode("utf-8", "surrogatepass"))
        total.update(b"\0")
    return total.hexdigest()[:_DIGITS]


def _home(values: tuple[Any, ...]) -> set[str]:
    """Return the modules whose code counts: those of the functions themselves."""
    plain = [getattr(value, "func", value) for value in values]
    return {getattr(value, "__module__", None) or type(value).__module__ for value in plain if callable(value)}


class _Walk:
    """Tells values in words that are the same in every process."""

    def __init__(self, home: set[str]) -> None:
        self._home = home
        self._seen: dict[int, Any] = {}

    def tell(self, value: Any) -> Iterator[str]:
        """Yield what makes up a value."""
        if isinstance(value, _PLAIN):
            yield f"{type(value).__name__} {value!r}"
            return
        yield type(value).__qualname__
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value  # kept, so that its number is not given to another value
        yield from self._parts(value)

    def _parts(self, value: Any) -> Iterator[str]:
        if isinstance(value, FunctionType):
            yield from self._function(value)
        elif isinstance(value, CodeType):
            yield from self._code(value)
        elif isinstance(value, functools.partial):
            yield from self.tell((value.func, value.args, value.keywords))
        elif isinstance(value, MethodType):
            yield from self.tell((value.__func__, value.__self__))
        elif isinstance(value, list | tuple | Mapping):
            for item in value.items() if isinstance(value, Mapping) else value:
                yield from self.tell(item)
        elif isinstance(value, set | frozenset):
            yield from sorted(" ".join(self.tell(item)) for item in value)
        else:
            yield from self._object(value)

    def _function(self, function: FunctionType) -> Iterator[str]:
        yield function.__qualname__
        if function.__module__ not in self._home:
            yield function.__module__ or ""
            return
        yield from self.tell(function.__code__)
        yield from self.tell((function.__defaults__, function.__kwdefaults__))
        for cell in function.__closure__ or ():
            yield from self.tell(cell.cell_contents)
        for name in _names(function.__code__):
            if name in function.__globals__:
                yield name
                yield from self.tell(function.__globals__[name])

    def _code(self, code: CodeType) -> Iterator[str]:
        yield code.co_code.hex()
        yield from (*code.co_names, *code.co_varnames, *code.co_freevars)
        for constant in code.co_consts:
            yield from self.tell(constant)

    def _object(self, value: Any) -> Iterator[str]:
        """Tell of modules and what is from elsewhere by name, of classes and objects from here by content."""
        kind = value if isinstance(value, type) else type(value)
        yield f"{kind.__module__}.{kind.__qualname__}"
        if isinstance(value, ModuleType | BuiltinFunctionType):
            yield value.__name__
        if isinstance(value, type):
            if value.__module__ in self._home:
                for key, item in vars(value).items():
                    if callable(item) or not key.startswith("__"):
                        yield from self.tell((key, item))
        elif kind.__module__ in self._home:
            yield from self.tell((kind, getattr(value, "__dict__", None)))
        else:
            yield from _content(value)


def _names(code: CodeType) -> list[str]:
    """Return the names that code, and the code inside it, looks up."""
    inner = [name for constant in code.co_consts if isinstance(constant, CodeType) for name in _names(constant)]
    return sorted({*code.co_names, *inner})


def _content(value: Any) -> Iterator[str]:
    """Tell the bytes of what shows them: arrays and Arrow tables."""
    try:
        view = memoryview(value)
    except TypeError:
        buffers = _arrow_buffers(value)
    else:
        buffers = [view.tobytes()]
    for buffer in buffers:
        yield hashlib.sha256(buffer).hexdigest()


def _arrow_buffers(value: Any) -> list[Any]:
    if not (hasattr(value, "num_rows") and hasattr(value, "schema")):
        return []
    import pyarrow as pa  # there is none without it

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, value.schema) as stream:
        stream.write_table(value) if isinstance(value, pa.Table) else stream.write_batch(value)
    return [sink.getvalue()]
