"""Process state of the driver that workers reproduce, since functions depend on it.

docs/workers.md lists which state is reproduced and which is not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from batchflow.core.bootstrap import DEPTH, depth

Filter = tuple[str, Any, str, str, Any, int]
"""Filter of `warnings`: action, message, module and name of the category, module, line."""


class ProcessState(NamedTuple):
    """State of the driver process when it loaded a job."""

    path: list[str]
    """Import path."""
    argv: list[str] | None
    """Program arguments; ``None``: unchanged since the workers started."""
    folder: str
    """Working directory; empty if it was removed."""
    environment: dict[str, str | None]
    """Environment variables changed since the workers started; ``None``: removed."""
    recursion_limit: int
    filters: tuple[Filter, ...]
    decimal: tuple[Any, ...] | None
    """Arguments of the `decimal.Context`; ``None``: the default."""
    authkey: bytes | None
    """Authentication key of `multiprocessing`, which proxies of its managers need."""

    @classmethod
    def capture(
        cls, before: Mapping[str, str], argv: Sequence[str] | None = None, *, nested: bool = False
    ) -> ProcessState:
        """Capture the state of this process.

        Parameters
        ----------
        before
            Environment variables when the workers started.
        argv
            Arguments when the workers started.
        nested
            Whether to pass the nesting depth of jobs to the workers.
        """
        arguments = arguments_of_program()
        changed: dict[str, str | None] = {
            name: value for name, value in os.environ.items() if before.get(name) != value
        }
        changed.update((name, None) for name in before if name not in os.environ)
        if nested:
            changed[DEPTH] = str(depth() + 1)
        return cls(
            path=import_path(),
            argv=None if arguments == argv else arguments,
            folder=working_directory(),
            environment=changed,
            recursion_limit=sys.getrecursionlimit(),
            filters=_filters(),
            decimal=_decimal_context(),
            authkey=_authkey(),
        )

    def apply(self, *, same_machine: bool = True) -> None:
        """Apply the state to this worker.

        Parameters
        ----------
        same_machine
            Whether the driver's import path is valid for the worker. On other machines the worker's entries take
            precedence, except over the first entry of the driver.
        """
        if same_machine:
            sys.path[:] = self.path
        else:
            _merge_path(self.path)
        if self.argv is not None:
            sys.argv[:] = self.argv
        _apply_environment(self.environment)
        if sys.getrecursionlimit() != self.recursion_limit:
            sys.setrecursionlimit(self.recursion_limit)
        _apply_decimal_context(self.decimal)
        if self.authkey is not None:
            from multiprocessing.process import current_process

            current_process().authkey = self.authkey

    def go_home(self) -> None:
        """Change to the working directory of the driver, if it exists here."""
        go_home(self.folder)

    def apply_filters(self) -> None:
        """Apply the driver's warning filters; filters of this worker alone come last."""
        if not self.filters:
            return
        import warnings

        filters = [filter_ for filter_ in map(_resolved, self.filters) if filter_ is not None]
        own = [filter_ for filter_ in warnings.filters if filter_ not in filters]
        warnings.filters[:] = filters + own  # type: ignore[index]
        with warnings.catch_warnings():
            pass  # clears the cache of filter matches


def working_directory() -> str:
    """Return the working directory; empty if it was removed."""
    with suppress(OSError):
        return os.getcwd()
    return ""


def go_home(folder: str) -> None:
    """Change to a folder, if it exists."""
    if folder:
        with suppress(OSError):
            os.chdir(folder)


def import_path() -> list[str]:
    """Return the import path; Python ignores entries that are not text."""
    entries: list[object] = list(sys.path)
    return [str(entry) for entry in entries if isinstance(entry, str)]


def arguments_of_program() -> list[str]:
    """Return ``sys.argv``, which may be missing in embedded Python and may contain any objects."""
    return [str(argument) for argument in getattr(sys, "argv", ())]


def _merge_path(path: Sequence[str]) -> None:
    """Add the driver's import path; each entry comes before the one that follows it in the driver."""
    index = len(sys.path)
    for entry in reversed(path):
        if entry in sys.path:
            index = sys.path.index(entry)
        else:
            sys.path.insert(index, entry)


_replaced: dict[str, str | None] = {}
"""Previous values of variables that the state of a job changed."""


def _apply_environment(changed: Mapping[str, str | None]) -> None:
    for name, value in _replaced.items():
        _set_variable(name, value)
    _replaced.clear()
    for name, value in changed.items():
        _replaced[name] = os.environ.get(name)
        _set_variable(name, value)


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _filters() -> tuple[Filter, ...]:
    """Return the filters of `warnings`, with categories by name so that workers need not import them."""
    warnings = sys.modules.get("warnings")
    if warnings is None:
        return ()
    return tuple(
        (action, message, category.__module__, category.__qualname__, module, line)
        for action, message, category, module, line in list(warnings.filters)
    )


def _resolved(known: Filter) -> tuple[Any, ...] | None:
    """Return a filter with its category; ``None`` if this process has not imported the category."""
    action, message, home, name, module, line = known
    category = getattr(sys.modules.get(home), name, None)
    return None if category is None else (action, message, category, module, line)


def _decimal_context() -> tuple[Any, ...] | None:
    decimal = sys.modules.get("decimal")
    if decimal is None or not hasattr(decimal, "getcontext"):  # another thread is importing it
        return None
    context, default = _settings(decimal.getcontext()), _settings(decimal.DefaultContext)
    return None if context == default else context


def _settings(context: Any) -> tuple[Any, ...]:
    """Return the arguments that recreate a context, without its flags."""
    names = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
    flags: list[Any] = []
    traps = [signal for signal, is_on in context.traps.items() if is_on]
    return *(getattr(context, name) for name in names), flags, traps


def _apply_decimal_context(settings: tuple[Any, ...] | None) -> None:
    if settings is not None or "decimal" in sys.modules:
        import decimal

        decimal.setcontext(decimal.Context(*settings) if settings else decimal.DefaultContext.copy())


def _authkey() -> bytes | None:
    """Return the authentication key, if this process uses managers."""
    if "multiprocessing.managers" not in sys.modules:
        return None
    from multiprocessing.process import current_process

    return bytes(current_process().authkey)
