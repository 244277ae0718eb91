"""Files that are made once: written under another name and renamed, so a file that is there is whole."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

MADE = Path(__file__).with_name("made")
"""Folder of what was made; git ignores it, and it may be deleted at any time."""

SEED = 1
"""Seed of all data, and part of each file's name: raise it when a generator changes."""


def make_once(name: str, records: Iterable[bytes], size: int) -> Path:
    """Return a file of the records that fit into a size in bytes (the first fits always)."""
    path = MADE / name
    if path.exists():
        return path
    MADE.mkdir(exist_ok=True)
    partial = path.with_name(f".{name}.{os.getpid()}")
    try:
        with partial.open("wb", buffering=1_000_000) as file:
            for record in records:
                if file.tell() and file.tell() + len(record) > size:
                    break
                file.write(record)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path
