"""Paths and URIs as users give them, and how to open one."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, NamedTuple, TypeAlias

from batchflow.errors import InputError
from batchflow.io.stores.uri import filesystem, is_uri, plain_path, why_refused

Paths: TypeAlias = "str | os.PathLike[str] | Iterable[str | os.PathLike[str]]"


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


def present(paths: Sequence[str]) -> list[str]:
    """Return those of some files that are there now, or of which nobody can tell."""
    return [path for path in paths if (_is_stored(path) if is_uri(path) else os.path.exists(path))]


def _is_stored(uri: str) -> bool:
    from pyarrow.fs import FileType

    try:
        system, path = filesystem(uri)
        return bool(system.get_file_info(path).type != FileType.NotFound)
    except (OSError, ValueError):
        return True  # listing it says what is wrong


class FileOverride(NamedTuple):
    """How files of another machine are opened here, by their names."""

    open: Callable[[str], IO[bytes] | Any]
    path: Callable[[str], str]
    """Gives the path of a copy."""


_elsewhere: dict[str, FileOverride] = {}


@contextmanager
def override_files(files: Mapping[str, FileOverride]) -> Iterator[None]:
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
        return open_file(uri)
    system, path = filesystem(uri)
    return system.open_input_file(path)


def open_file(path: str) -> io.FileIO:
    """Open a file of this machine for reading bytes, without a buffer.

    Raises
    ------
    OSError
        If it cannot be opened, or is no regular file: a pipe may have taken the place of a file that was listed.
    """
    # Without O_NONBLOCK, opening a pipe waits for a writer.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _refuse(path, os.fstat(handle).st_mode)
        return io.FileIO(handle)
    except BaseException:
        os.close(handle)
        raise


def refuse_irregular(path: str) -> None:
    """Raise `OSError` if a path is of a pipe, socket or device; one that is not there is left to who opens it."""
    with suppress(FileNotFoundError):
        _refuse(path, os.stat(path).st_mode)


def _refuse(path: str, mode: int) -> None:
    if kind := irregular(mode):
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, f"it is {kind}, not a file", path)


def irregular(mode: int) -> str:
    """Return what has a mode that no regular file has, ``""`` for one."""
    if stat.S_ISREG(mode):
        return ""
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    return kinds.get(stat.S_IFMT(mode), "a device")
