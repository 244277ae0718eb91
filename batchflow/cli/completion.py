"""What a shell completes on TAB: `argcomplete` asks the parser; here is what it offers for each argument.

No module of the user's is imported for it: names are read off its text. Nothing of this is loaded but
for a shell that asks.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import argcomplete
from argcomplete.completers import DirectoriesCompleter, FilesCompleter
from argcomplete.shell_integration import shellcode

_CHOICES = {
    "read": ("text", "json", "csv", "parquet", "files"),
    "format": ("parquet", "csv", "jsonl", "arrow"),
    "executor": ("serial", "processes", "ray"),
}
_FILES = {"INPUT", "PATH", "FILE"}


def script(shell: str) -> str:
    """Return what a shell has to read so that it completes our commands."""
    return str(shellcode(["batchflow"], shell=shell))


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer a shell that asks what may come next, and end the process."""
    _attach(parser)
    argcomplete.autocomplete(parser, always_complete_options=False)


def _attach(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                _attach(sub)
        elif action.choices is None:
            action.completer = _completer(action)  # type: ignore[attr-defined]


def _completer(action: argparse.Action) -> Callable[..., Iterable[str]]:
    """Return what offers values of an argument."""
    if action.dest in _CHOICES:
        return lambda **_: _CHOICES[action.dest]
    if action.dest == "output":
        return outputs
    metavar = str(action.metavar)
    if metavar.startswith("MODULE:"):
        return flows if metavar == "MODULE:FLOW" else functions
    if metavar == "DIR":
        return DirectoriesCompleter()
    return FilesCompleter() if metavar in _FILES else _nothing


def _nothing(**_: Any) -> list[str]:
    """Offer nothing, where a number is wanted, say; argcomplete's own class for it hides the option too."""
    return []


def functions(prefix: str, **_: Any) -> list[str]:
    """Offer Python files and folders and, behind the colon, functions of the module."""
    return _named(prefix, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))


def flows(prefix: str, **_: Any) -> list[str]:
    """Offer the same, but also names that are assigned, as a flow may be."""
    return _named(prefix, (ast.FunctionDef, ast.Assign, ast.AnnAssign))


def _named(prefix: str, kinds: tuple[type[ast.stmt], ...]) -> list[str]:
    module, colon, begun = prefix.rpartition(":")
    if not colon:
        return [*_beside(prefix, lambda path: ":" if path.suffix == ".py" else None)]
    names = [name for name in _names(module, kinds) if name.startswith(begun) and not name.startswith("_")]
    return [f"{module}:{name}" for name in names]


def _names(module: str, kinds: tuple[type[ast.stmt], ...]) -> Iterator[str]:
    """Yield what a module holds at its top."""
    file = Path(module if module.endswith(".py") else module.replace(".", "/") + ".py")
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for one in tree.body:
        if not isinstance(one, kinds):
            continue
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield one.name
        targets = one.targets if isinstance(one, ast.Assign) else [getattr(one, "target", None)]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def outputs(prefix: str, **_: Any) -> list[str]:
    """Offer outputs of batchflow, and folders, in which there may be some."""
    from batchflow.io.stores import META

    return [*_beside(prefix, lambda path: "" if path.with_name(f".{path.name}{META}").is_dir() else None)]


def _beside(prefix: str, ending: Callable[[Path], str | None]) -> Iterator[str]:
    """Yield folders that begin like a text, and those files that have an ending for it."""
    folder, slash, begun = prefix.rpartition("/")
    try:
        paths = sorted(Path(folder + slash).iterdir())
    except OSError:
        return
    for path in paths:
        hidden = path.name.startswith((".", "__")) and not begun
        end = "/" if path.is_dir() else ending(path)
        if path.name.startswith(begun) and not hidden and end is not None:
            yield f"{folder}{slash}{path.name}{end}"
