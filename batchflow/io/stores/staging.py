"""Between a worker's disk and an object store: formats write and read files, stores take objects.

Each use has a temporary folder of its own, locked as long as its process lives. It is removed whatever
happens; where a worker is killed it stays, and the next one that begins, or the driver at its end,
removes every folder whose lock nobody holds.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache

from batchflow.core.chunks import Piece, Slice
from batchflow.io.stores.uri import filesystem, is_uri

_PREFIX = "batchflow-transit-"
_BLOCK = 4 << 20
_THREADS = 8
"""Objects fetched at once: small ones take the time of their requests."""


@contextmanager
def upload_on_exit(path: str) -> Iterator[str]:
    """Lend the name of a local file; what is written to it is at a path or URI when the block is over."""
    if not is_uri(path):
        yield path
        return
    with scratch_dir() as folder:
        local = f"{folder}/{path.rpartition('/')[2]}"
        yield local
        upload(local, path)


@contextmanager
def downloaded(pieces: Sequence[Piece | Slice]) -> Iterator[Sequence[Piece | Slice]]:
    """Give pieces as local files; those of a store are fetched."""
    wanted = {piece.path: piece for piece in pieces if is_uri(piece.path)}
    if not wanted:
        yield pieces
        return
    from concurrent.futures import ThreadPoolExecutor

    with scratch_dir() as folder:
        names = {uri: f"{folder}/{at}-{uri.rpartition('/')[2]}" for at, uri in enumerate(wanted)}
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda uri: _fetch(wanted[uri], names[uri]), wanted))
        yield [piece._replace(path=names.get(piece.path, piece.path)) for piece in pieces]


def upload(local: str, uri: str) -> None:
    """Write a file as an object, in many requests at once if it is large."""
    system, path = filesystem(uri)
    with open(local, "rb") as source, system.open_output_stream(path) as target:
        while block := source.read(_BLOCK):
            target.write(block)


def _fetch(piece: Piece | Slice, local: str) -> None:
    """Write an object as a file; raises `OSError` if it is not what it was."""
    import hashlib  # only where a store is asked

    system, path = filesystem(piece.path)
    seen = hashlib.sha256()
    with system.open_input_stream(path) as source, open(local, "wb") as target:
        while block := source.read(_BLOCK):
            seen.update(block)
            target.write(block)
    if isinstance(piece, Piece) and seen.hexdigest()[:32] != piece.digest:
        message = f"{piece.path} was changed after it was written"
        raise OSError(message)


@contextmanager
def scratch_dir() -> Iterator[str]:
    """Make a temporary folder that is gone after the block, and is known as left behind if its process dies."""
    import shutil
    import tempfile

    _sweep_once()
    while True:
        folder = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getuid()}-")
        lock = _locked(folder)
        if lock is not None:
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(folder: str) -> int | None:
    """Return a folder, open and locked; ``None`` if somebody else has it, or removed it."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.stat(folder), os.fstat(handle)):
            return handle
    os.close(handle)
    return None


@cache
def _sweep_once() -> None:
    sweep()


def sweep() -> None:
    """Remove what processes of this user left behind on this machine that were killed."""
    import shutil
    import tempfile

    with os.scandir(tempfile.gettempdir()) as entries:
        left = [entry.path for entry in entries if entry.name.startswith(f"{_PREFIX}{os.getuid()}-")]
    for folder in left:
        lock = _locked(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
