"""Paths, folders, globs and URIs: which files they stand for, and how to open one."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeAlias

from batchflow.errors import InputError
from batchflow.model import Input
from batchflow.sources.compression import by_suffix
from batchflow.stores.uris import filesystem, is_uri, plain_path, why_refused

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

Paths: TypeAlias = "str | os.PathLike[str] | Iterable[str | os.PathLike[str]]"

_MAGIC = re.compile(r"[*?[]")


def as_paths(paths: Paths) -> tuple[str, ...]:
    """Return one path or many as a tuple of text, with ``~`` expanded and ``file://`` URIs as paths.

    Raises
    ------
    InputError
        If a URI holds credentials.
    """
    many = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    return tuple(_plain(os.fspath(path)) for path in many)


def _plain(path: str) -> str:
    refused = why_refused(path) if is_uri(path) else None
    if refused:
        raise InputError(refused)
    return plain_path(path)


def expand(paths: tuple[str, ...]) -> list[Input]:
    """List the files that paths, folders, globs and URIs stand for.

    Order is that of the paths, inside a folder or glob that of the names. A file that is named twice,
    in whatever spelling, counts once. Names that start with ``_`` or ``.`` are left out of folders.

    Raises
    ------
    InputError
        If a path matches no file.
    """
    found: dict[str, Input] = {}
    for path in paths:
        items = list(_remote(path) if is_uri(path) else _local(path))
        if not items:
            raise InputError(_nothing(path))
        for item in items:
            found.setdefault(item.uri if is_uri(item.uri) else os.path.abspath(item.uri), item)  # noqa: PTH100
    if not found:
        message = "no input: the list of paths is empty"
        raise InputError(message)
    return list(found.values())


def present(paths: Sequence[str]) -> list[str]:
    """Return those of some files that are there now, or of which nobody can tell."""
    return [path for path in paths if (_is_stored(path) if is_uri(path) else os.path.exists(path))]  # noqa: PTH110


def _is_stored(uri: str) -> bool:
    from pyarrow.fs import FileType

    try:
        system, path = filesystem(uri)
        return bool(system.get_file_info(path).type != FileType.NotFound)
    except (OSError, ValueError):
        return True  # listing it says what is wrong


def _nothing(path: str) -> str:
    where = f" (looked in {os.getcwd()})" if not is_uri(path) and not os.path.isabs(path) else ""  # noqa: PTH109, PTH117
    if _MAGIC.search(path):
        return f"no file matches {path!r}{where}"
    if not is_uri(path) and os.path.isdir(path):  # noqa: PTH112
        return f"the folder {path!r} holds no files{where}"
    return f"{path!r} does not exist{where}"


def _local(path: str) -> Iterator[Input]:
    if os.path.isdir(path):  # noqa: PTH112
        yield from sorted(_walk(path), key=lambda item: item.uri)
    elif os.path.exists(path):  # noqa: PTH110
        yield _describe(path)
    elif _MAGIC.search(path):
        for match in sorted(glob.glob(path, recursive=True)):  # noqa: PTH207 - Path.glob is 5 times slower
            if not os.path.isdir(match):  # noqa: PTH112
                yield _describe(match)


def _walk(folder: str) -> Iterator[Input]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(("_", ".")):
                continue
            if not (os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()):  # noqa: PTH112
                yield _describe(entry.path)
            elif not (entry.is_symlink() and _holds(entry.path, folder)):
                yield from _walk(entry.path)


def _holds(link: str, folder: str) -> bool:
    """Whether a link leads to a folder that holds it: no end would come."""
    end = os.path.realpath(link)
    return os.path.commonpath([end, os.path.realpath(folder)]) == end


def _describe(path: str) -> Input:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return Input(path, 0, "", by_suffix(path))  # the worker that reads the file tells what is wrong with it
    return Input(path, status.st_size, str(status.st_mtime_ns), by_suffix(path))


def _remote(uri: str) -> Iterator[Input]:
    from pyarrow.fs import FileSelector, FileType

    fixed = _MAGIC.split(uri, maxsplit=1)[0]
    root = uri if fixed == uri else fixed.rpartition("/")[0]
    try:
        system, path = filesystem(root)
        info = system.get_file_info(path)
        if info.type == FileType.File:
            yield _remote_input(uri, info)
            return
        listing = system.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
    except (OSError, ValueError) as error:
        message = f"cannot list {uri!r}: {error}"
        raise InputError(message) from error
    wanted = re.compile(_translate(uri)) if fixed != uri else None
    for entry in sorted(listing, key=lambda entry: entry.path):
        visible = not any(part.startswith(("_", ".")) for part in entry.path[len(path) :].split("/"))
        name = root.rstrip("/") + entry.path[len(path.rstrip("/")) :]
        if entry.type == FileType.File and (wanted.fullmatch(name) if wanted else visible):
            yield _remote_input(name, entry)


def _remote_input(uri: str, info: FileInfo) -> Input:
    """Return an object as an input; its time in whole seconds, since stores tell more of them in lists only."""
    version = str(info.mtime_ns // 10**9 * 10**9) if info.mtime_ns else ""
    return Input(uri, info.size or 0, version, by_suffix(uri))


def _translate(pattern: str) -> str:
    """Return a glob as a regular expression: ``**`` crosses folders, ``*`` and ``?`` do not."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", pattern)
    meanings = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        meanings.get(part) or (part.replace("[!", "[^") if part.startswith("[") else re.escape(part))
        for part in parts
    )


class Opened(NamedTuple):
    """How files of another machine are opened here, by their names."""

    open: Callable[[str], IO[bytes] | Any]
    path: Callable[[str], str]
    """Gives the path of a copy."""


_elsewhere: dict[str, Opened] = {}


@contextmanager
def elsewhere(files: Mapping[str, Opened]) -> Iterator[None]:
    """Have files opened as they are on another machine, whatever is here under their names."""
    _elsewhere.update(files)
    try:
        yield
    finally:
        for uri in files:
            del _elsewhere[uri]


def is_elsewhere(uri: str) -> bool:
    """Whether a file is opened as it is on another machine."""
    return uri in _elsewhere


def path_of(uri: str) -> str:
    """Return the path at which a file can be opened on this machine."""
    return _elsewhere[uri].path(uri) if uri in _elsewhere else uri


def open_input(uri: str) -> IO[bytes] | Any:
    """Open a file or object for reading bytes, with ``seek``."""
    if uri in _elsewhere:
        return _elsewhere[uri].open(uri)
    if not is_uri(uri):
        return open(uri, "rb", buffering=0)  # noqa: PTH123 - callers read big blocks and close
    system, path = filesystem(uri)
    return system.open_input_file(path)
