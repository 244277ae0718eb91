"""Pickles of objects that other processes cannot import: lambdas, closures, definitions in ``__main__``."""

from __future__ import annotations

import functools
import io
import sys
import threading
from collections import ChainMap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, ClassVar

_NAMELESS = "<dynamic-code>"
"""Placeholder of cloudpickle (from 3.1.3) for the file of a function."""
_CHILD = "__mp_main__"
"""Name of the main module in a spawned `multiprocessing` process; other processes have no such module."""
files: dict[str, ModuleType] = {}
"""Modules loaded by the path of their file, by name; other machines have no such file."""
_by_reference: list[str] = []
"""Names in `files` that are currently pickled by reference, once for each thread that requests it."""


@contextmanager
def files_by_reference() -> Iterator[None]:
    """Pickle definitions in files of this machine by reference, if a worker can import the file by name."""
    found = list(filter(_is_found, files))
    _by_reference.extend(found)
    try:
        yield
    finally:
        for name in found:
            _by_reference.remove(name)


def _is_found(name: str) -> bool:
    """Whether importing this name finds the file that a module was loaded from."""
    from importlib.machinery import PathFinder  # only needed for functions of a file

    spec = PathFinder.find_spec(name)
    return spec is not None and spec.origin == files[name].__file__


def has_modules_by_value() -> bool:
    """Whether some module is pickled by value: a loaded file, or one registered with `cloudpickle`."""
    if not files.keys() <= set(_by_reference):
        return True
    if "cloudpickle" not in sys.modules:
        return False
    import cloudpickle  # blocks if another thread is importing it

    return bool(cloudpickle.list_registry_pickle_by_value() - files.keys())


def dumps_by_value(value: Any, buffer_callback: Callable[[Any], Any] | None = None) -> bytes:
    """Pickle an object by value; code keeps its file name for tracebacks.

    Raises
    ------
    Exception
        Any exception of an object that cannot be pickled.
    """
    file = io.BytesIO()
    by_value_pickler()(file, protocol=5, buffer_callback=buffer_callback).dump(value)
    return file.getvalue()


def by_value_pickler() -> Any:
    """Return the pickler class for objects that other processes cannot import."""
    import cloudpickle  # 20 ms, which most jobs need not spend in every process

    registered = cloudpickle.list_registry_pickle_by_value()
    if _CHILD in sys.modules and _CHILD not in registered:
        cloudpickle.register_pickle_by_value(sys.modules[_CHILD])
    for name, module in files.items():
        if (name in registered) == (name in _by_reference):
            kind = "unregister" if name in _by_reference else "register"
            getattr(cloudpickle, f"{kind}_pickle_by_value")(module)
    return _pickler()


@cache
def _pickler() -> Any:
    import cloudpickle
    from cloudpickle.cloudpickle import _should_pickle_by_reference as is_importable

    reduce = cloudpickle.Pickler.dispatch_table[CodeType]

    def reduce_code(code: CodeType) -> tuple[Any, ...]:
        make, arguments, *rest = reduce(code)
        return make, tuple(code.co_filename if one == _NAMELESS else one for one in arguments), *rest

    def reduce_cached(cached: Any) -> Any:
        if is_importable(cached.__wrapped__):
            return cached.__reduce__()
        return _make_cached, (cached.__wrapped__, cached.cache_parameters())

    table = {
        CodeType: reduce_code,
        type(cache(len)): reduce_cached,
        functools.cached_property: _reduce_property,
        io.TextIOWrapper: _reduce_file,
    }

    class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
        dispatch_table: ClassVar[Any] = ChainMap(table, cloudpickle.Pickler.dispatch_table)

        def reducer_override(self, value: Any) -> Any:
            if type(value) is FunctionType and _is_dispatching(value) and not is_importable(value):
                implementations = dict(value.registry)  # type: ignore[attr-defined]
                return _make_dispatching, (implementations.pop(object), implementations)
            reduced = super().reducer_override(value)
            if type(value) is FunctionType and type(reduced) is tuple:
                globals_ = reduced[2][1]["__globals__"]  # a new dict of the globals that the function refers to
                globals_.update((name, _New(one)) for name, one in globals_.items() if type(one) in _OF_PROCESS)
            return reduced

    return ByValuePickler


def _reduce_file(file: Any) -> Any:
    """Refuse an open file, which cloudpickle would copy into memory; standard streams are pickled by name."""
    import cloudpickle

    if file in (sys.stdout, sys.stderr):
        return cloudpickle.Pickler.dispatch_table[io.TextIOWrapper](file)
    name = getattr(file, "name", "in memory")
    message = f"an open file ({name}) cannot go to another process: give its name or its content"
    raise TypeError(message)


_OF_PROCESS = (type(threading.Lock()), type(threading.RLock()), threading.local, ContextVar)
"""Types of globals that are recreated in each process, as if the module had been imported."""


class _New:
    """Pickles as a new object of the same kind as a global."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __reduce__(self) -> tuple[Any, ...]:
        if not isinstance(self._value, ContextVar):
            return _makers[type(self._value)], ()
        try:
            default = Context().run(self._value.get)
        except LookupError:
            return ContextVar, (self._value.name,)
        return _make_variable, (self._value.name, default)


_makers: dict[type, Callable[[], Any]] = {
    type(threading.Lock()): threading.Lock,
    type(threading.RLock()): threading.RLock,
    threading.local: threading.local,
}


def _make_variable(name: str, default: Any) -> ContextVar[Any]:
    return ContextVar(name, default=default)


def _make_cached(fn: Callable[..., Any], parameters: dict[str, Any]) -> Any:
    """Return a function with a new empty cache, as `functools.lru_cache` creates it."""
    return functools.lru_cache(**parameters)(fn)


def _reduce_property(value: Any) -> Any:
    """Reduce a `functools.cached_property`, which has a lock before Python 3.12."""
    return _make_property, (value.func, value.attrname)


def _make_property(fn: Callable[[Any], Any], name: str) -> Any:
    made: functools.cached_property[Any] = functools.cached_property(fn)
    made.__set_name__(object, name)
    return made


def _is_dispatching(fn: Any) -> bool:
    """Whether a function was created by `functools.singledispatch`."""
    return hasattr(fn, "registry") and hasattr(fn, "dispatch") and hasattr(fn, "_clear_cache")


def _make_dispatching(fn: Callable[..., Any], implementations: dict[Any, Callable[..., Any]]) -> Any:
    made = functools.singledispatch(fn)
    for kind, implementation in implementations.items():
        made.register(kind, implementation)
    return made


def define_main(fn: Any) -> None:
    """Define in a worker's ``__main__`` what a function of the driver's ``__main__`` refers to.

    Child processes of the worker, such as those of a `multiprocessing.Pool`, look up such functions by name.
    """
    if type(fn) is not FunctionType or fn.__module__ != "__main__":
        return
    main = sys.modules["__main__"]
    for name, value in {**fn.__globals__, fn.__name__: fn}.items():
        if isinstance(value, FunctionType | type) and value.__module__ == "__main__":
            setattr(main, name, value)
