"""Pickles of what other processes have no definition of: lambdas, closures, what ``__main__`` defines."""

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
"""What cloudpickle has put in the place of a function's file since 3.1.3."""
_CHILD = "__mp_main__"
"""Name of the main module in a spawned process of `multiprocessing`, which no other process has."""
files: dict[str, ModuleType] = {}
"""Modules that were loaded by the path of their file, by name; other machines have no such file."""
_by_reference: list[str] = []
"""Names of the `files` whose definitions go by name for the moment, once for each thread that asks for it."""


@contextmanager
def files_by_reference() -> Iterator[None]:
    """Pickle what is defined in a file of this machine by its name, if a worker finds the file by that."""
    found = list(filter(_is_found, files))
    _by_reference.extend(found)
    try:
        yield
    finally:
        for name in found:
            _by_reference.remove(name)


def _is_found(name: str) -> bool:
    """Whether an import of this name finds the file that a module was loaded from."""
    from importlib.machinery import PathFinder  # only for functions of a file

    spec = PathFinder.find_spec(name)
    return spec is not None and spec.origin == files[name].__file__


def has_modules_by_value() -> bool:
    """Whether other processes may not find some module: a file, or one that `cloudpickle` was told of."""
    if not files.keys() <= set(_by_reference):
        return True
    if "cloudpickle" not in sys.modules:
        return False
    import cloudpickle  # waits for another thread that imports it

    return bool(cloudpickle.list_registry_pickle_by_value() - files.keys())


def dumps_by_value(value: Any, buffer_callback: Callable[[Any], Any] | None = None) -> bytes:
    """Return an object as a pickle; code keeps the name of its file, which tracebacks show.

    Raises
    ------
    Exception
        Whatever the object raises that cannot be pickled.
    """
    file = io.BytesIO()
    by_value_pickler()(file, protocol=5, buffer_callback=buffer_callback).dump(value)
    return file.getvalue()


def by_value_pickler() -> Any:
    """Return the class that pickles what is not defined elsewhere."""
    import cloudpickle  # 20 ms, which most jobs need not wait for in every process

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
                globals_ = reduced[2][1]["__globals__"]  # a new dict with what the function refers to
                globals_.update((name, _New(one)) for name, one in globals_.items() if type(one) in _OF_PROCESS)
            return reduced

    return ByValuePickler


def _reduce_file(file: Any) -> Any:
    """Refuse an open file, of which cloudpickle would make a copy in memory; standard streams go by name."""
    import cloudpickle

    if file in (sys.stdout, sys.stderr):
        return cloudpickle.Pickler.dispatch_table[io.TextIOWrapper](file)
    name = getattr(file, "name", "in memory")
    message = f"an open file ({name}) cannot go to another process: give its name or its content"
    raise TypeError(message)


_OF_PROCESS = (type(threading.Lock()), type(threading.RLock()), threading.local, ContextVar)
"""Types of globals of which each process has its own, as it has when it imports a module."""


class _New:
    """Pickles as a new object of the kind of a global."""

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
    """Return a function with an empty cache of its own, as `functools.lru_cache` does."""
    return functools.lru_cache(**parameters)(fn)


def _reduce_property(value: Any) -> Any:
    """Reduce a `functools.cached_property`, which has a lock before Python 3.12."""
    return _make_property, (value.func, value.attrname)


def _make_property(fn: Callable[[Any], Any], name: str) -> Any:
    made: functools.cached_property[Any] = functools.cached_property(fn)
    made.__set_name__(object, name)
    return made


def _is_dispatching(fn: Any) -> bool:
    """Whether a function was made by `functools.singledispatch`."""
    return hasattr(fn, "registry") and hasattr(fn, "dispatch") and hasattr(fn, "_clear_cache")


def _make_dispatching(fn: Callable[..., Any], implementations: dict[Any, Callable[..., Any]]) -> Any:
    made = functools.singledispatch(fn)
    for kind, implementation in implementations.items():
        made.register(kind, implementation)
    return made


def define_main(fn: Any) -> None:
    """Define in ``__main__`` of a worker what a function of the driver's ``__main__`` refers to.

    Children of the worker get such functions by name: those of a `multiprocessing.Pool`, say.
    """
    if type(fn) is not FunctionType or fn.__module__ != "__main__":
        return
    main = sys.modules["__main__"]
    for name, value in {**fn.__globals__, fn.__name__: fn}.items():
        if isinstance(value, FunctionType | type) and value.__module__ == "__main__":
            setattr(main, name, value)
