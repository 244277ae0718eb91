"""Object stores, and whatever else `pyarrow.fs` reaches.

An object is there as a whole once it is written to its end, so nothing need be renamed to be visible whole.
To move one is to have the store copy it: its bytes do not come by here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Literal

from batchflow.io.stores.base import Place, Store
from batchflow.io.stores.uri import filesystem

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

THREADS = 16
"""Requests on their way at once, where there are many to be made."""
COPY_LIMIT = 5 << 30
"""Bytes of the largest object that S3 copies in one request, which is all that Arrow asks it for."""
_BLOCK = 8 << 20
_KEYED = frozenset({"s3", "gcs", "abfs"})
"""File systems without folders, which need not be made and must not be left behind empty."""


class Objects(Store):
    """Objects behind a URI."""

    def kind(self, place: Place) -> Literal["file", "folder"] | None:
        """Return what is at a place."""
        from pyarrow.fs import FileType

        kinds: dict[Any, Literal["file", "folder"]] = {FileType.File: "file", FileType.Directory: "folder"}
        return kinds.get(_info(place).type)

    def size(self, place: Place) -> int | None:
        """Return the bytes of an object."""
        return _info(place).size

    def sizes(self, folder: Place) -> dict[str, int | None]:
        """Return the bytes of each object in a folder."""
        from pyarrow.fs import FileSelector

        system, path = filesystem(str(folder))
        try:
            found = system.get_file_info(FileSelector(path, allow_not_found=True))
        except NotADirectoryError:
            return {}
        return {info.base_name: info.size for info in found}

    def open(self, place: Place) -> IO[bytes]:
        """Return a stream of the bytes of an object."""
        system, path = filesystem(str(place))
        stream: Any = system.open_input_stream(path)
        return stream  # type: ignore[no-any-return]

    def put(self, place: Place, data: Any) -> None:
        """Write an object."""
        system, path = filesystem(str(place))
        if system.type_name not in _KEYED:
            system.create_dir(path.rpartition("/")[0], recursive=True)
        with system.open_output_stream(path) as stream:
            stream.write(data)  # in one call, since whatever is written when an error comes would become an object

    def write(self, place: Place, data: Any) -> None:
        """Write an object in the place of what is there."""
        self.put(place, data)

    def move(self, old: Place, new: Place) -> None:
        """Have the store copy an object, and remove the old one."""
        system, path = filesystem(str(old))
        target = filesystem(str(new))[1]
        if (_info(old).size or 0) > COPY_LIMIT:
            _copy_through(system, path, target)
            system.delete_file(path)
        else:
            system.move(path, target)

    def digest(self, place: Place) -> str:
        """Return what tells the content of an object from any other."""
        found = hashlib.sha256()
        with self.open(place) as stream:
            while block := stream.read(_BLOCK):
                found.update(block)
        return found.hexdigest()[:32]

    def make(self, folder: Place) -> None:
        """Make a folder, where there are any."""
        system, path = filesystem(str(folder))
        if system.type_name not in _KEYED:
            system.create_dir(path, recursive=True)

    def remove(self, places: Iterable[Place]) -> None:
        """Remove objects, many at once."""
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(_remove, places))

    def remove_all(self, folder: Place) -> None:
        """Remove all objects in a folder, a thousand in each request."""
        system, path = filesystem(str(folder))
        with suppress(OSError):  # nothing refers to what may be left; and there may be none
            system.delete_dir(path)


def _info(place: Place) -> FileInfo:
    system, path = filesystem(str(place))
    info: FileInfo = system.get_file_info(path)
    return info


def _remove(place: Place) -> None:
    system, path = filesystem(str(place))
    with suppress(FileNotFoundError):
        system.delete_file(path)


def _copy_through(system: FileSystem, old: str, new: str) -> None:
    """Copy an object by way of this machine."""
    try:
        with system.open_input_stream(old) as source, system.open_output_stream(new) as target:
            while block := source.read(_BLOCK):
                target.write(block)
    except BaseException:  # what came so far is an object by now
        with suppress(OSError):
            system.delete_file(new)
        raise
