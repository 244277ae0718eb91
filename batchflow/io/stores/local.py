"""Folders of this machine: written under a temporary name, synced, renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Literal

from batchflow.io.formats.base import digest
from batchflow.io.stores.base import Place, Store


class Local(Store):
    """Files and folders of this machine."""

    def kind(self, place: Place) -> Literal["file", "folder"] | None:
        """Return what is at a place."""
        path = _path(place)
        if path.is_dir():
            return "folder"
        return "file" if path.exists() else None

    def size(self, place: Place) -> int | None:
        """Return the bytes of a file."""
        try:
            return _path(place).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sizes(self, folder: Place) -> dict[str, int | None]:
        """Return the bytes of each file in a folder."""
        if not _path(folder).is_dir():
            return {}
        with os.scandir(_path(folder)) as entries:
            return {
                entry.name: None if entry.is_dir() else entry.stat(follow_symlinks=False).st_size
                for entry in entries
            }

    def open(self, place: Place) -> IO[bytes]:
        """Return a stream of the bytes of a file."""
        return _path(place).open("rb")

    def put(self, place: Place, data: Any) -> None:
        """Write a file, on disk when this returns."""
        with _path(place).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def write(self, place: Place, data: Any) -> None:
        """Write a file under a temporary name, and rename it."""
        new = place.with_name(f"{place.name}.new")
        self.put(new, data)
        _path(new).replace(_path(place))

    def move(self, old: Place, new: Place) -> None:
        """Rename a file; its new name is on disk when this returns."""
        _path(old).replace(_path(new))
        _sync_folder(_path(new).parent)

    def digest(self, place: Place) -> str:
        """Return what tells the content of a file from any other."""
        return digest(str(place))

    def make(self, folder: Place) -> None:
        """Make a folder."""
        _path(folder).mkdir(parents=True, exist_ok=True)

    def remove(self, places: Iterable[Place]) -> None:
        """Remove files."""
        for place in places:
            _path(place).unlink(missing_ok=True)

    def remove_all(self, folder: Place) -> None:
        """Remove a folder and all that is in it."""
        shutil.rmtree(_path(folder), ignore_errors=True)


def _path(place: Place) -> Path:
    assert isinstance(place, Path)
    return place


def _sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
