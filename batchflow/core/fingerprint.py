"""Fingerprints of functions and values: equal in every process, different after any change.

Functions are hashed by their compiled code, so comments and formatting are ignored. The hash includes the
functions, classes and values of the user's project that they use. A module whose names are looked up at run
time (`globals`, `eval`, `getattr`) is hashed as a whole, by the code of its file. Installed packages are
represented by name and version, process state by its name, other values by what `pickle` would store.
A value that fits none of these raises `FingerprintError`: it is never assumed equal.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import hashlib
import importlib
import io
import marshal
import pickle
import re
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain, pairwise, takewhile
from pickle import PickleBuffer
from typing import Any, NamedTuple, cast

from batchflow.core.module_origins import (
    distribution,
    installed_files,
    is_project,
    lookup,
    module_code,
    source_file,
)

_DIGITS = 16
_LEAVES = frozenset((int, float, complex, str, bytes, bool, type(None), type(...)))
_SHORT = 40
"""Maximum size in bytes of a value that is not hashed separately."""
_NESTED = frozenset((list, tuple, dict))
_EXACT_MODULES = frozenset(("datetime", "decimal", "uuid", "fractions", "ipaddress"))
_NUMPY_SCALARS = frozenset(("bool", "int", "uint", "float", "complex", "str", "bytes", "datetime", "timedelta"))
_PLAIN_DEPTH = 20
_BLOCK = 8192
"""Number of items pickled at a time."""
_LOCKS = ("_thread.lock", "_thread.RLock", "_thread._local")
"""C types without comparable state."""
_CLASS_NOISE = frozenset(
    (
        "__dict__",
        "__weakref__",
        "__module__",
        "__qualname__",
        "__firstlineno__",
        "__static_attributes__",
        "__annotations_cache__",
        "__abstractmethods__",
        "_abc_impl",
        # built from the rest of the class, or filled by use
        "__pydantic_core_schema__",
        "__pydantic_validator__",
        "__pydantic_serializer__",
        "__pydantic_setattr_handlers__",
        "__signature__",
    )
)
_FIELDS = (types.GetSetDescriptorType, types.MemberDescriptorType)
"""Descriptor types for the attributes of C-level classes."""
_ADDRESS = re.compile(r"(?<=:)\d{9,}")
"""Possible address of a class in a text, such as the ``cls_ref`` of a pydantic validator."""
_GLOBALS_NOISE = frozenset(
    (
        "__builtins__",
        "__cached__",
        "__file__",
        "__loader__",
        "__path__",
        "__spec__",
    )
)
"""Module globals that depend on the location of the module."""
_CACHES = {"numpy.vectorize": "_ufunc"}
"""Attributes filled by calls, by class."""


_PROCESS_STATE = {
    "os": ("environ", "environb"),
    "sys": (
        "path",
        "argv",
        "modules",
        "meta_path",
        "path_hooks",
        "path_importer_cache",
        "warnoptions",
        "stdin",
        "stdout",
        "stderr",
        "__stdin__",
        "__stdout__",
        "__stderr__",
    ),
    "warnings": ("filters",),
    "random": ("_inst",),
    "numpy.random.mtrand": ("_rand",),
}
"""Names of process state by module; it is represented by its name."""


class FingerprintError(TypeError):
    """Value that cannot be compared between two processes; the message names it."""


class Fingerprint(NamedTuple):
    """Fingerprint of some values."""

    digest: str
    """Hash of the values; empty if they cannot be compared."""
    unknown: str
    """Reason why the values cannot be compared; empty if they can."""
    packages: dict[str, str]
    """Installed distributions that functions use, with their versions."""


def examine(*values: Any, opaque: tuple[type, ...] = ()) -> Fingerprint:
    """Return the combined fingerprint of functions or other values.

    Parameters
    ----------
    opaque
        Classes whose objects are represented only by the name of the class.
    """
    walk = _ValueWalk(opaque)
    try:
        total = _hash("roots", [walk.root(value) for value in values])
    except FingerprintError as error:
        return Fingerprint("", str(error), {})
    except RecursionError:
        return Fingerprint("", "a value is nested too deeply to be compared", {})
    return Fingerprint(total.hex()[2 : _DIGITS + 2], "", dict(sorted(walk.packages.items())))


def fingerprint(*values: Any, opaque: tuple[type, ...] = ()) -> str:
    """Return the combined hash of functions or other values; parameters are those of `examine`.

    Raises
    ------
    FingerprintError
        If a value, or one that a function uses, cannot be compared between two processes.
    """
    found = examine(*values, opaque=opaque)
    if not found.digest:
        raise FingerprintError(found.unknown)
    return found.digest


def _hash(kind: str, tokens: Iterable[bytes]) -> bytes:
    total = hashlib.sha256(kind.encode("utf-8", "surrogatepass"))
    for token in tokens:
        total.update(b"%d:" % len(token))
        total.update(token)
    return b"#" + total.digest()


def _leaf(value: Any) -> bytes:
    data = b"=" + marshal.dumps(value, 2)  # this version writes neither references nor interning flags
    return data if len(data) <= _SHORT else b"#" + hashlib.sha256(data).digest()


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


class _ValueWalk:
    """One pass over values; each value becomes a token that represents its content."""

    def __init__(self, opaque: tuple[type, ...] = ()) -> None:
        self._opaque = opaque
        self._done: dict[int, tuple[Any, bytes]] = {}
        """Tokens by identity, with the value kept alive so that its id is not reused."""
        self._open: dict[int, int] = {}
        """Enclosing values that are being hashed, by identity, with their depth."""
        self._path: list[str] = []
        self._process_state = _process_state()
        self.packages: dict[str, str] = {}

    def root(self, value: Any) -> bytes:
        """Return the token of a value; a function of an installed package is hashed with its files."""
        token = self.token(value)
        function = getattr(value, "func", value)
        module = getattr(function, "__module__", None) if callable(function) else None
        found = None if module is None else distribution(module)
        if found is None or module is None:
            return token
        return _hash("installed", (token, *map(_leaf, installed_files(found, module))))

    def token(self, value: Any) -> bytes:
        """Return the token of a value."""
        kind = type(value)
        if kind in _LEAVES:
            self._check_address(value)
            if kind is str and ":" in value:
                value = _ADDRESS.sub(self._class_at, value)
            return _leaf(value)
        number = id(value)
        if number in self._process_state:
            return _leaf(self._process_state[number])
        if kind in _CONTAINERS:
            items = _plain_items(value, self._process_state)
            if items is not None:
                return items
        done = self._done.get(number)
        if done is not None:
            return done[1]
        if number in self._open:
            return b"^%d" % (len(self._open) - self._open[number])
        self._open[number] = len(self._open)
        try:
            token = self._parts(value, kind)
        finally:
            del self._open[number]
        self._done[number] = value, token
        return token

    def tokens(self, values: Iterable[Any]) -> Iterator[bytes]:
        """Yield a token for each value."""
        return map(self.token, values)

    @contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Name a part of a value, for error messages."""
        self._path.append(name)
        yield
        self._path.pop()  # not after an error, whose message reads it

    def _refuse(self, value: Any, why: str) -> FingerprintError:
        place = " of ".join(reversed(self._path)) or "a value"
        return FingerprintError(f"{place} is a {_name_of(type(value))}, {why}")

    def _check_address(self, value: Any) -> None:
        """Refuse a number or text that is the address of an enclosing value."""
        if type(value) is int:
            is_address = value in self._open
        elif type(value) is str and " at 0x" in value:
            is_address = any(f" at {number:#x}" in value for number in self._open)
        else:
            return
        if is_address:
            message = f"{' of '.join(reversed(self._path)) or 'a value'} contains an address in memory"
            raise FingerprintError(message)

    def _class_at(self, address: re.Match[str]) -> str:
        """Return a placeholder for a class whose address is part of a text, as in pydantic validators."""
        number = int(address[0])
        if number in self._open:
            return f"^{len(self._open) - self._open[number]}"
        value, token = self._done.get(number, (None, b""))
        return token.hex() if isinstance(value, type) else address[0]

    def _parts(self, value: Any, kind: type) -> bytes:
        if self._opaque and isinstance(value, self._opaque):
            return _leaf(kind.__qualname__)
        method = _METHODS.get(kind)
        if method is not None:
            return method(self, value)
        if isinstance(value, type):
            return self._class(value)
        name = _name_of(kind)
        if name in _LOCKS:
            return _leaf(name)
        if isinstance(value, weakref.WeakKeyDictionary | weakref.WeakValueDictionary):
            return _hash(name, self.tokens([*value.items()]))
        special = _SPECIAL.get(name.partition(".")[0])
        token = special(self, value) if special is not None else None
        if token is None and hasattr(kind, "__arrow_c_stream__") and not name.startswith("pandas."):
            token = self._arrow(value)
        return token if token is not None else self._object(value)

    # Containers

    def _sequence(self, value: Any) -> bytes:
        return _hash(type(value).__name__, self.tokens(value))

    def _mapping(self, value: Mapping[Any, Any]) -> bytes:
        tokens: list[bytes] = []
        noise = _GLOBALS_NOISE if "__builtins__" in value else ()  # validate_call of pydantic stores the globals
        for key, item in value.items():
            if key in noise:
                continue
            tokens.append(self.token(key))
            with self._named(f"[{key!r}]" if type(key) in _LEAVES else "an item"):
                tokens.append(self.token(item))
        return _hash(type(value).__name__, tokens)

    def _set(self, value: Iterable[Any]) -> bytes:
        tokens = []
        known = len(self._done)
        for item in value:
            tokens.append(self.token(item))
            while len(self._done) > known:  # tokens inside cycles depend on the order of this walk
                self._done.popitem()
        return _hash(type(value).__name__, sorted(tokens))

    def _view(self, value: Any) -> bytes:
        return _hash(type(value).__name__, self.tokens([*value]))

    def _buffer(self, value: Any) -> bytes:
        view = value.raw() if isinstance(value, PickleBuffer) else memoryview(value)
        data = view if view.contiguous else view.tobytes()
        return _hash("buffer", (_leaf(view.format), _leaf(view.shape), hashlib.sha256(data).digest()))

    # Code

    def _function(self, function: types.FunctionType) -> bytes:
        names = function.__globals__
        code = function.__code__
        module = names.get("__name__")
        registry = getattr(function, "registry", None)
        if module == "functools" and isinstance(registry, types.MappingProxyType):
            return _hash("singledispatch", (self._mapping(registry),))
        with self._named(f"{function.__qualname__}()"):
            tokens = [_leaf(function.__qualname__)]
            if not is_project(module):
                tokens.append(self._package(module))
                if lookup(module, code.co_qualname) is function:
                    return _hash("imported", (*tokens, _leaf(module)))
            tokens += self.tokens((code, function.__defaults__, function.__kwdefaults__, function.__annotations__))
            if function.__closure__:
                tokens += self._variables(_cells(function), code)
            if is_project(module):
                tokens += self._variables(_globals(function), code)
                tokens += self._imports(code, _package_of(names))
                tokens += self._looked_up_late(function)
            return _hash("function", tokens)

    def _looked_up_late(self, function: types.FunctionType) -> Iterator[bytes]:
        """Yield tokens of the modules that a function looks up by text at run time, each hashed as a whole."""
        code, values = function.__code__, function.__globals__
        names = set(_names(code))
        by_text = any(name not in values for name in _BY_TEXT.intersection(_looked_up(code)))
        modules = "sys" in names and "modules" in names
        modules = modules or any(values.get(name) is sys.modules for name in names)
        if by_text or modules or "__globals__" in names:
            yield self._whole(values.get("__name__"))
        if modules:
            yield from map(self._whole, filter(_is_module_of_project, _texts(code)))
        aliases = {name for name in names if values.get(name) in (importlib.import_module, __import__)}
        for text in _dynamic_imports(code, frozenset(aliases | _IMPORTERS), values):
            if text is None:
                message = f"{' of '.join(reversed(self._path))} imports a module whose name only a call tells"
                raise FingerprintError(message)
            module = _absolute(text, _package_of(values))
            yield self._named_module(module)

    def _named_module(self, module: str) -> bytes:
        return self._file(module) if is_project(module) else self._package(module)

    def _whole(self, module: str | None) -> bytes:
        """Return the token of a module of which any name may be used."""
        if module is None or source_file(module) is None:
            message = f"{' of '.join(reversed(self._path))} looks up names by text, in a module without a file"
            raise FingerprintError(message)
        return self._file(module)

    def _variables(self, values: Mapping[str, Any], code: types.CodeType) -> Iterator[bytes]:
        """Yield tokens of a function's variables, and of attributes of modules and functions among them."""
        attributes = _names(code)
        passed = _passed_on(code)
        for name, value in values.items():
            with self._named(name):
                yield _leaf(name)
                yield from self._attributes(name, value, attributes, passed)

    def _attributes(self, of: str, value: Any, names: list[str], passed: frozenset[str]) -> Iterator[bytes]:
        if isinstance(value, types.ModuleType) and is_project(value.__name__):
            if of in passed and source_file(value.__name__):  # passed to getattr() or vars(), for example
                yield self._file(value.__name__)
            if id(value) not in self._open:
                yield from self._module_attributes(value, names, passed)
            return
        yield self.token(value)
        if isinstance(value, type) and "__subclasses__" in names:
            yield from self._subclasses(value)
        if isinstance(value, types.FunctionType):  # f.model = ...
            for name in names:
                if name in vars(value):
                    yield _leaf(name)
                    yield self.token(vars(value)[name])

    def _module_attributes(
        self, module: types.ModuleType, names: list[str], passed: frozenset[str]
    ) -> Iterator[bytes]:
        found = {name: vars(module)[name] for name in names if name in vars(module)}
        self._open[id(module)] = len(self._open)
        for name, item in found.items():
            with self._named(name):
                yield _leaf(name)
                yield from self._attributes(name, item, names, passed)
        del self._open[id(module)]

    def _code(self, code: types.CodeType) -> bytes:
        counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        plain = self.tokens((code.co_code, code.co_exceptiontable, counts, *names))
        return _hash("code", (*plain, *self.tokens(code.co_consts)))

    def _imports(self, code: types.CodeType, package: str) -> Iterator[bytes]:
        """Yield tokens of modules that code imports at run time, without importing them."""
        for module, names in _imported(code, package):
            if not is_project(module):
                yield self._package(module)
                continue
            for name in (module, *(f"{module}.{name}" for name in names or ())):
                yield self._file(name)

    def _subclasses(self, kind: type) -> Iterator[bytes]:
        """Yield tokens of the subclasses of a class, in the order of their names."""
        found: list[type] = type.__subclasses__(kind)
        for derived in sorted(found, key=_name_of):
            yield self.token(derived)
            yield from self._subclasses(derived)

    def _file(self, module: str) -> bytes:
        """Return the token of a project module: of its file and, recursively, of the modules it imports."""
        file = source_file(module)
        if file is None:
            return _leaf(None)  # no such module: an attribute of its parent has that name
        code = module_code(file)
        if isinstance(code, bytes):
            return _leaf(code)
        key = f"file {module}"
        if key in self._path:
            return _leaf(module)
        with self._named(key):
            is_folder = file.endswith("__init__.py")
            package = module if is_folder else module.rpartition(".")[0]
            dynamic = [_absolute(text, package) for text in _dynamic_imports(code, _IMPORTERS, {}) if text]
            return _hash(
                "module", (self.token(code), *self._imports(code, package), *map(self._named_module, dynamic))
            )

    def _module(self, module: types.ModuleType) -> bytes:
        name = module.__name__
        return self._file(name) if is_project(name) else _hash("module", (_leaf(name), self._package(name)))

    def _package(self, module: str | None) -> bytes:
        found = distribution(module or "")
        if found is None:
            return _leaf(None)
        self.packages[found.name] = found.version
        return _leaf((found.name, found.version))

    def _class(self, kind: type) -> bytes:
        module = kind.__module__
        if not is_project(module) and lookup(module, kind.__qualname__) is kind:
            return _leaf(f"class {_name_of(kind)}")
        tokens = [_leaf(kind.__qualname__), *self.tokens((type(kind), *kind.__bases__))]
        with self._named(kind.__qualname__):
            for name, item in vars(kind).items():
                if name in _CLASS_NOISE or name == _CACHES.get(_name_of(kind)):
                    continue
                if name == "__doc__" and _is_made_doc(kind, item):
                    continue
                tokens += (_leaf(name), self._attribute(name, item))
            for name in _metaclass_attributes(type(kind)):  # such as the defaults of a msgspec.Struct
                tokens += (_leaf(name), self._attribute(name, getattr(kind, name, None)))
            if any("__subclasses__" in _names(method.__code__) for method in _methods(kind)):
                tokens += self._subclasses(kind)
        return _hash("class", tokens)

    def _attribute(self, name: str, item: Any) -> bytes:
        with self._named(f".{name}"):
            return self.token(item)

    # Wrappers of the C level

    def _method(self, value: types.MethodType) -> bytes:
        return _hash("method", self.tokens((value.__func__, value.__self__)))

    def _builtin(self, value: Any) -> bytes:
        owner = value.__self__
        if owner is None or isinstance(owner, types.ModuleType):
            module = value.__module__ or "builtins"
            return _hash("builtin", (_leaf(value.__qualname__), *self._named_in(module)))
        return _hash("builtin method", (_leaf(value.__name__), self.token(owner)))

    def _named_in(self, module: str) -> Iterator[bytes]:
        """Yield tokens of the module that contains a value pickled by name."""
        if module in {"__main__", "__mp_main__"}:
            return
        yield _leaf(module)
        yield self._file(module) if is_project(module) else self._package(module)

    def _descriptor(self, value: Any) -> bytes:
        return _hash(type(value).__name__, (_leaf(value.__name__), self.token(value.__objclass__)))

    def _property(self, value: property) -> bytes:
        return _hash("property", self.tokens((value.fget, value.fset, value.fdel)))

    def _wrapped(self, value: Any) -> bytes:
        return _hash(type(value).__name__, (self.token(value.__wrapped__),))

    def _cached_property(self, value: Any) -> bytes:
        return _hash("cached_property", self.tokens((value.func, value.attrname)))

    def _cell(self, value: types.CellType) -> bytes:
        try:
            return self.token(value.cell_contents)
        except ValueError:  # not yet assigned
            return _leaf("empty cell")

    def _weak(self, value: Any) -> bytes:
        return _hash("weakref", (self.token(value()),))

    def _context(self, value: ContextVar[Any]) -> bytes:
        try:
            return _hash("context", self.tokens((value.name, value.get())))
        except LookupError:
            return _hash("context", (_leaf(value.name),))

    # Objects

    def _object(self, value: Any) -> bytes:
        """Return the token of what `pickle` would store of an object."""
        kind = type(value)
        name = _name_of(kind)
        reduced = self._reduced(value)
        if isinstance(reduced, str):
            return self._global(value, reduced)
        with self._named(f"a {name}" if not self._path else "the state"):
            token = self._state(kind, reduced)
            if _reduces_itself(kind) and token != self._state(kind, self._reduced(value)):
                raise self._refuse(value, "whose pickle changes from one to the next")
        return token

    def _reduced(self, value: Any) -> Any:
        try:
            reduce = copyreg.dispatch_table.get(type(value))
            return value.__reduce_ex__(5) if reduce is None else reduce(value)
        except FingerprintError:
            raise
        except Exception as error:
            wrapped = _held_function(value)
            if wrapped is not None:
                return _held_function, (wrapped,), getattr(value, "__dict__", None)
            raise self._refuse(value, "which pickle does not take") from error

    def _state(self, kind: type, reduced: tuple[Any, ...]) -> bytes:
        make, arguments, state, items, pairs = (*reduced, None, None, None)[:5]
        if isinstance(state, dict) and _name_of(kind) in _CACHES:
            state = {key: item for key, item in state.items() if key != _CACHES[_name_of(kind)]}
        for item in chain(arguments, state.values() if isinstance(state, dict) else ()):
            self._check_address(item)
        tokens = [self.token(kind), self.token(make), *self.tokens(arguments), self.token(state)]
        tokens += [_hash("items", self.tokens([*values])) for values in (items, pairs) if values is not None]
        return _hash("object", tokens)

    def _global(self, value: Any, name: str) -> bytes:
        """Return the token of a value pickled by name; in the project, its file is hashed as well."""
        module = getattr(value, "__module__", None)
        if not isinstance(module, str) or lookup(module, name) is not value:
            module = pickle.whichmodule(value, name)  # type: ignore[attr-defined]
        held = _held_function(value)
        if held is not None:
            return _hash("wrapper", (_leaf(_name_of(type(value))), self.token(held)))
        if lookup(module, name) is not value:
            raise self._refuse(value, "which no module has under its name")
        tokens = [_leaf(name), *self._named_in(module)]
        if is_project(module):
            tokens.append(self.token(getattr(value, "__dict__", None)))
        return _hash("global", tokens)

    def _arrow(self, value: Any) -> bytes | None:
        """Return the token of Arrow data or a compatible frame: its IPC stream, hashed without being stored."""
        import pyarrow as pa

        table = _as_arrow(value, pa)
        if table is None:
            return None
        total = hashlib.sha256()
        sink = pa.PythonFile(cast("Any", _Sink(total.update)), mode="w")
        try:
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table)
        except (pa.ArrowException, NotImplementedError):
            return None
        return _hash(_name_of(type(value)), (total.digest(),))

    def _msgspec(self, value: Any) -> bytes | None:
        """Return the token of a constraint, configuration, encoder or decoder: of all its settings."""
        kind = type(value)
        if kind.__name__ not in {"Meta", "StructConfig", "Encoder", "Decoder"}:
            return None
        names = [name for name, item in vars(kind).items() if isinstance(item, _FIELDS)]
        return _hash(_name_of(kind), self.tokens([*names, *(getattr(value, name) for name in names)]))

    def _rpds(self, value: Any) -> bytes | None:
        """Return the token of a mapping or set whose order differs between processes."""
        name = type(value).__name__
        if name not in {"HashTrieMap", "HashTrieSet"}:
            return None
        return _hash(name, (self._set([*(value.items() if name == "HashTrieMap" else value)]),))

    def _ctypes(self, value: Any) -> bytes | None:
        """Return the token of a C library; its functions are refused, as they do not name it."""
        import ctypes

        if not isinstance(value, ctypes.CDLL):
            return None
        name: str | None = value._name  # None is this process
        try:
            content = None if name is None else module_code(name)
        except OSError:
            content = None
        return _hash("library", self.tokens((name, content)))


class _Sink:
    """File object that hashes all writes."""

    closed = False

    def __init__(self, update: Callable[[Any], object]) -> None:
        self._update = update

    def write(self, data: Any) -> int:
        self._update(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _metaclass_attributes(meta: type) -> list[str]:
    """Return the names of C-level data that a metaclass stores on a class beside its attributes."""
    found = {
        name
        for one in meta.__mro__
        if not issubclass(type, one)
        for name, item in vars(one).items()
        if isinstance(item, _FIELDS)
    }
    return sorted(found - {"__dict__", "__weakref__", "__signature__"})


def _plain_items(value: Any, apart: Mapping[int, str]) -> bytes | None:
    """Return the token of a container of plain values, computed in C; ``None`` for other containers.

    Parameters
    ----------
    apart
        Identities of containers that are not plain values.
    """
    kind = type(value)
    if kind is dict:
        parts: Iterable[list[Any]] = ([*value], [*value.values()])
    elif kind is list or kind is tuple:
        parts = ([*value[first : first + _BLOCK]] for first in range(0, len(value), _BLOCK))
    else:
        is_plain = _LEAVES.issuperset(map(type, value))
        return _hash(kind.__name__, sorted(map(_leaf, value))) if is_plain else None
    tokens = []
    for part in parts:
        if not _is_plain(part, apart):
            return None
        file = io.BytesIO()
        pickler = pickle.Pickler(file, 5)
        pickler.fast = True  # without references, which depend on object identity
        pickler.dump(part)
        tokens.append(hashlib.sha256(file.getbuffer()).digest())
    return _hash(kind.__name__, tokens)


def _is_plain(items: list[Any], apart: Mapping[int, str]) -> bool:
    """Whether values, nested ones included, are of types whose pickles are equal exactly if the values are."""
    level = items
    for _ in range(_PLAIN_DEPTH):
        kinds = set(map(type, level)) - _LEAVES
        if not kinds:
            return True
        if not all(kind in _NESTED or _is_exact(kind) for kind in kinds):
            return False
        nested = [item for item in level if type(item) in _NESTED]
        if not apart.keys().isdisjoint(map(id, nested)):
            return False
        values = (item.values() for item in nested if type(item) is dict)
        level = [*chain.from_iterable(nested), *chain.from_iterable(values)]
    return False


def _is_exact(kind: type) -> bool:
    """Whether a type of the standard library or a NumPy scalar always pickles the same way."""
    if kind.__module__ == "numpy":
        return kind.__name__.rstrip("0123456789_") in _NUMPY_SCALARS
    return kind.__module__ in _EXACT_MODULES


def _process_state() -> dict[int, str]:
    """Return the canonical names of process state, by identity."""
    return {
        id(getattr(sys.modules[module], name)): f"{module}.{name.strip('_')}"
        for module, names in _PROCESS_STATE.items()
        if module in sys.modules
        for name in names
        if getattr(sys.modules[module], name, None) is not None
    }


def _held_function(value: Any) -> Any:
    """Return the Python function that a compiled wrapper calls."""
    for name in ("__wrapped__", "py_func", "python_function", "factory"):
        held = getattr(value, name, None)
        if callable(held) and held is not value:
            return held
    return None


def _reduces_itself(kind: type) -> bool:
    """Whether Python code outside the standard library defines how an object is pickled."""
    names = ("__reduce_ex__", "__reduce__", "__getstate__")
    methods = [getattr(kind, name, None) for name in names]
    return any(isinstance(method, types.FunctionType) for method in methods)


def _as_arrow(value: Any, pa: Any) -> Any:
    """Return Arrow data, or a compatible frame, as a table."""
    if isinstance(value, pa.Table):
        return value
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value])
    name = str(getattr(value, "name", ""))
    for make in (pa.table, lambda item: pa.table([pa.chunked_array(item)], [name])):
        try:
            return make(value)
        except (pa.ArrowException, TypeError, ValueError, AttributeError):
            continue
    return None


def _cells(function: types.FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not yet assigned
            found[name] = None
    return found


def _globals(function: types.FunctionType) -> dict[str, Any]:
    """Return the global variables that a function, nested code included, looks up."""
    names = function.__globals__
    return {name: names[name] for name in _looked_up(function.__code__) if name in names}


@functools.lru_cache(1024)
def _looked_up(code: types.CodeType) -> list[str]:
    wanted = {
        item.argval
        for inner in _codes(code)
        for item in dis.get_instructions(inner)
        if item.opname.startswith("LOAD_") and ("GLOBAL" in item.opname or item.opname == "LOAD_NAME")
    }
    return sorted(wanted)


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _names(code: types.CodeType) -> list[str]:
    """Return all names in code, including attributes and nested code."""
    return sorted({name for inner in _codes(code) for name in inner.co_names})


@functools.lru_cache(1024)
def _passed_on(code: types.CodeType) -> frozenset[str]:
    """Return the names that code uses as values, and not only to access an attribute."""
    found = set()
    for inner in _codes(code):
        steps = [item for item in dis.get_instructions(inner) if item.opname not in _NO_STEPS]
        for item, after in pairwise(steps):
            if item.opname.startswith("LOAD_") and not after.opname.startswith(("LOAD_ATTR", "LOAD_METHOD")):
                found.add(item.argval)
    return frozenset(name for name in found if isinstance(name, str))


def _dynamic_imports(
    code: types.CodeType, importers: frozenset[str], values: Mapping[str, Any]
) -> Iterator[str | None]:
    """Yield the arguments of `import_module` or `__import__` in code; ``None`` if only known at run time."""
    for inner in _codes(code):
        if importers.isdisjoint(inner.co_names + inner.co_varnames + inner.co_freevars):
            continue
        steps = [item for item in dis.get_instructions(inner) if item.opname not in _NO_STEPS]
        for number, item in enumerate(steps):
            if not item.opname.startswith("LOAD_") or item.argval not in importers:
                continue
            given = [*takewhile(lambda one: not one.opname.startswith(("CALL", "PRECALL")), steps[number + 1 :])]
            first = given[0] if given else item
            text = values.get(first.argval) if "GLOBAL" in first.opname else first.argval
            computed = any(one.opname.startswith(("BINARY", "FORMAT", "BUILD", "STORE")) for one in given)
            known = first.opname.startswith(("LOAD_CONST", "LOAD_GLOBAL")) and not computed
            yield text if known and isinstance(text, str) else None


def _texts(code: types.CodeType) -> list[str]:
    """Return the strings among the constants of code."""
    return sorted({one for inner in _codes(code) for one in inner.co_consts if isinstance(one, str)})


def _is_module_of_project(name: str) -> bool:
    return name in sys.modules and is_project(name) and source_file(name) is not None


def _absolute(module: str, package: str) -> str:
    """Return the absolute name of a module named relative to a package."""
    name = module.lstrip(".")
    level = len(module) - len(name)
    parts = package.split(".")
    return ".".join(filter(None, (*parts[: len(parts) - level + 1], name))) if level else name


def _methods(kind: type) -> Iterator[types.FunctionType]:
    for item in vars(kind).values():
        method = getattr(item, "__func__", item)
        if isinstance(method, types.FunctionType):
            yield method


def _is_made_doc(kind: type, doc: object) -> bool:
    """Whether a docstring is the signature that `dataclass` or `namedtuple` generates, with defaults as text."""
    made = hasattr(kind, "__dataclass_fields__") or hasattr(kind, "_fields")
    return doc is None or (made and str(doc).startswith(f"{kind.__name__}("))


def _package_of(names: Mapping[str, Any]) -> str:
    package = names.get("__package__")
    if package is None:
        package = names.get("__name__", "").rpartition(".")[0]
    return str(package)


def _imported(code: types.CodeType, package: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield modules that code imports, each with the names imported from it."""
    for level, names, module in _import_statements(code):
        parts = package.split(".")
        base = ".".join(parts[: len(parts) - level + 1]) if level else ""
        yield ".".join(filter(None, (base, module))), names


@functools.lru_cache(1024)
def _import_statements(code: types.CodeType) -> list[tuple[int, tuple[str, ...], str]]:
    found = []
    for inner in _codes(code):
        before: list[Any] = [None, None]
        for item in dis.get_instructions(inner):
            if item.opname == "IMPORT_NAME":
                found.append((before[0], tuple(before[1] or ()), item.argval))
            if item.opname not in {"EXTENDED_ARG", "NOP", "CACHE"}:
                before = [before[1], item.argval]
    return found


_IMPORTERS = frozenset(("import_module", "__import__"))
_BY_TEXT = frozenset(("globals", "eval", "exec"))
"""Builtins that look up names of a module by text."""
_NO_STEPS = frozenset(("EXTENDED_ARG", "NOP", "CACHE", "PUSH_NULL", "RESUME", "COPY_FREE_VARS"))
"""Instructions that neither consume nor produce a value."""
_CONTAINERS = frozenset((list, tuple, dict, set, frozenset))
_METHODS: dict[type, Callable[[_ValueWalk, Any], bytes]] = {
    list: _ValueWalk._sequence,
    tuple: _ValueWalk._sequence,
    dict: _ValueWalk._mapping,
    set: _ValueWalk._set,
    frozenset: _ValueWalk._set,
    weakref.WeakSet: _ValueWalk._set,
    types.MappingProxyType: _ValueWalk._mapping,
    type({}.keys()): _ValueWalk._view,
    type({}.values()): _ValueWalk._view,
    type({}.items()): _ValueWalk._view,
    memoryview: _ValueWalk._buffer,
    PickleBuffer: _ValueWalk._buffer,
    bytearray: _ValueWalk._buffer,
    types.FunctionType: _ValueWalk._function,
    types.CodeType: _ValueWalk._code,
    types.ModuleType: _ValueWalk._module,
    types.MethodType: _ValueWalk._method,
    types.BuiltinFunctionType: _ValueWalk._builtin,
    types.GetSetDescriptorType: _ValueWalk._descriptor,
    types.MemberDescriptorType: _ValueWalk._descriptor,
    property: _ValueWalk._property,
    functools.cached_property: _ValueWalk._cached_property,
    staticmethod: _ValueWalk._wrapped,
    classmethod: _ValueWalk._wrapped,
    type(functools.cache(len)): _ValueWalk._wrapped,
    types.CellType: _ValueWalk._cell,
    weakref.ref: _ValueWalk._weak,
    ContextVar: _ValueWalk._context,
}
_SPECIAL: dict[str, Callable[[_ValueWalk, Any], bytes | None]] = {
    "ctypes": _ValueWalk._ctypes,
    "msgspec": _ValueWalk._msgspec,
    "rpds": _ValueWalk._rpds,
}
