"""Origin of a module: the standard library, an installed distribution, or the user's own project.

The project is everything without a version: a script, its folder, packages on the path, editable installs.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib.machinery import PathFinder
from types import CodeType, ModuleType
from typing import Any, NamedTuple

_SITE = frozenset(("site-packages", "dist-packages"))
_LIBRARY = os.path.dirname(os.path.realpath(os.__file__))
_OURS = "batchflow"


class Distribution(NamedTuple):
    """Installed distribution that provides a top-level module."""

    name: str
    version: str
    record: str | None
    """Path of its ``RECORD`` file, which lists the hash of each installed file."""


def is_project(module: str | None) -> bool:
    """Whether a module belongs to the user's project, so that its content is hashed instead of its name."""
    return module is None or _kind(_top(module)) == "project"


def distribution(module: str) -> Distribution | None:
    """Return the installed distribution of a module, if any."""
    top = _top(module)
    return _distribution(top) if _kind(top) == "site" else None


def _top(module: str) -> str:
    return module.partition(".")[0]


def _kind(top: str) -> str:
    """Return the origin of a top-level module: "library", "site" or "project"."""
    if top == _OURS:
        return "site"
    place = _location(top)
    if place is None:
        return "library" if top in sys.builtin_module_names or top in sys.stdlib_module_names else "project"
    if not _SITE.isdisjoint(place.split(os.sep)):
        return "site"
    return "library" if os.path.realpath(place).startswith(_LIBRARY + os.sep) else "project"


def _location(top: str) -> str | None:
    """Return the file or folder of a top-level module; ``None`` if it has none."""
    module = sys.modules.get(top)
    if module is not None:
        return _path_of(module)
    return _found(top)


def _path_of(module: ModuleType) -> str | None:
    file = getattr(module, "__file__", None)
    folders = list(getattr(module, "__path__", None) or ())
    return file or (folders[0] if folders else None)


@cache
def _found(top: str) -> str | None:
    try:
        spec = PathFinder.find_spec(top)
    except (ImportError, ValueError, OSError):
        return None
    if spec is None:
        return None
    folders = list(spec.submodule_search_locations or ())
    return spec.origin or (folders[0] if folders else None)


@cache
def _distribution(top: str) -> Distribution:
    place = _location(top) or ""
    folder = os.path.dirname(place)
    if os.path.basename(place).startswith("__init__."):
        folder = os.path.dirname(folder)
    try:
        entries = os.listdir(folder or ".")
    except OSError:
        entries = []
    for entry in entries:  # 0.2 ms; importlib.metadata takes 20 ms to load
        name, _, rest = entry.partition("-")
        if rest.endswith(".dist-info") and name.lower().replace(".", "_") == top.lower():
            return Distribution(name, rest.removesuffix(".dist-info"), os.path.join(folder, entry, "RECORD"))
    return _distribution_of_other_name(top)


def _distribution_of_other_name(top: str) -> Distribution:
    """Return a distribution whose name differs from its module, as PyYAML provides ``yaml``."""
    from importlib import metadata

    names = [_OURS] if top == _OURS else metadata.packages_distributions().get(top, [])
    versions = []
    for name in sorted(set(names)):
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    version = str(getattr(sys.modules.get(top), "__version__", ""))
    return Distribution(top, ", ".join(versions) or version, None)


def installed_files(found: Distribution, module: str) -> list[str]:
    """Return the ``RECORD`` lines of a top-level module: a new build of one version has other hashes."""
    if found.record is None:
        return []
    prefixes = (f"{_top(module)}/", f"{_top(module)}.")
    try:
        with open(found.record, encoding="utf-8") as file:
            return sorted(line for line in file if line.startswith(prefixes) and ".pyc," not in line)
    except OSError:
        return []


def source_file(module: str) -> str | None:
    """Return the file of a module without importing it."""
    loaded = sys.modules.get(module)
    file = getattr(loaded, "__file__", None)
    if loaded is not None:
        return file
    top, *parts = module.split(".")
    place = _location(top)
    if place is None or not parts:
        return place if place and os.path.isfile(place) else None
    folder = os.path.dirname(place) if os.path.isfile(place) else place
    path = os.path.join(folder, *parts)
    return next(filter(os.path.isfile, (f"{path}.py", os.path.join(path, "__init__.py"))), None)


def module_code(file: str) -> CodeType | bytes:
    """Return the compiled code of a module, without comments; the bytes if it is not Python source."""
    with open(file, "rb") as opened:
        data = opened.read()
    if not file.endswith(".py"):
        return data
    try:
        return compile(data, file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return data


def lookup(module: str | None, name: str) -> Any:
    """Return the value of a dotted name in a loaded module, or ``None``."""
    value: Any = sys.modules.get(module or "")
    for part in name.split("."):
        value = getattr(value, part, None)
    return value
