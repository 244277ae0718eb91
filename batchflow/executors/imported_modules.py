"""Detection of user modules that were reloaded or edited after workers imported them."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

from batchflow.core.package import PACKAGE_DIR

_LIBRARIES = tuple(os.path.join(prefix, "lib") for prefix in (sys.prefix, sys.base_prefix))


class ImportedModules:
    """User modules imported by this process, with the state of their files."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        """Names of all modules inspected so far, including libraries."""
        self._states: dict[str, tuple[Any, int]] = {}
        """Import and modification time of each user file."""

    def update(self) -> list[str]:
        """Record new modules, and return the names of those reloaded or edited since the last call."""
        for name in sys.modules.keys() - self._seen:
            self._seen.add(name)
            if _is_of_user(_spec(name)):
                self._states[name] = _state(name)
        changed = [name for name, state in self._states.items() if _state(name) != state]
        self._states.update((name, _state(name)) for name in changed)
        return changed


def _spec(name: str) -> Any:
    return getattr(sys.modules.get(name), "__spec__", None)


def _is_of_user(spec: Any) -> bool:
    """Whether a module is a file that the user may edit."""
    file = getattr(spec, "origin", None)
    if not isinstance(file, str) or not file.endswith(".py") or not getattr(spec, "has_location", False):
        return False
    return not file.startswith((PACKAGE_DIR, *_LIBRARIES)) and "site-packages" not in file


def _state(name: str) -> tuple[Any, int]:
    """Return the import of a module, which each reload replaces, and the modification time of its file."""
    spec = _spec(name)
    with suppress(OSError):
        return spec, os.stat(spec.origin).st_mtime_ns
    return spec, 0
