"""What Python's standard library defines: the function of the project's demo."""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchflow.io.sources.whole_files import File

ROOT = Path(sysconfig.get_paths()["stdlib"])
"""Folder of the standard library that runs this."""

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def definitions(file: File) -> Iterator[dict[str, Any]]:
    """Yield a row for each function and class of a Python file, nested ones too, in order of line.

    Raises
    ------
    SyntaxError, UnicodeDecodeError, ValueError
        If the file is not Python: some of the library's tests are not, on purpose.
    """
    module = _module(Path(file.path))
    found = [node for node in ast.walk(_parse(file.read_bytes())) if isinstance(node, _DEFINITIONS)]
    for node in sorted(found, key=lambda node: (node.lineno, node.col_offset)):
        yield {
            "module": module,
            "name": node.name,
            "kind": "class" if isinstance(node, ast.ClassDef) else "function",
            "line": node.lineno,
            "length": (node.end_lineno or node.lineno) - node.lineno + 1,
            "arguments": 0 if isinstance(node, ast.ClassDef) else _count(node.args),
            "documented": ast.get_docstring(node, clean=False) is not None,
        }


def _parse(source: bytes) -> ast.Module:
    """Parse bytes, so that a file's own encoding declaration holds; odd literals make no noise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return ast.parse(source)


def _module(path: Path) -> str:
    """Return the dotted name of a file of the library; a package is named by its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _count(arguments: ast.arguments) -> int:
    """Return how many arguments there are, of all kinds; ``*args`` and ``**kwargs`` are one each."""
    named = arguments.posonlyargs + arguments.args + arguments.kwonlyargs
    return len(named) + (arguments.vararg is not None) + (arguments.kwarg is not None)
