"""Files that are made once: written under another name and renamed, so a file that is there is whole."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

MADE = Path(__file__).with_name("made")
"""Folder of what was made; git ignores it, and it may be deleted at any time."""

SEED = 1
"""Seed of all data, and part of each file's name: raise it when a generator changes."""


def make_once(name: str, content: Iterable[bytes]) -> Path:
    """Return a file with this content, which is asked for only if there is no such file yet."""
    path = MADE / name
    if path.exists():
        return path
    MADE.mkdir(exist_ok=True)
    partial = path.with_name(f".{name}.{os.getpid()}")
    try:
        with partial.open("wb", buffering=1_000_000) as file:
            file.writelines(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def within(records: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield the records that fit into a size in bytes (the first fits always)."""
    total = 0
    for record in records:
        if total and total + len(record) > size:
            return
        total += len(record)
        yield record


def gzipped(content: Iterable[bytes]) -> Iterator[bytes]:
    """Yield content as the bytes of a gz file without a time in it, the same each time."""
    packer = zlib.compressobj(wbits=31)
    for part in content:
        yield packer.compress(part)
    yield packer.flush()
