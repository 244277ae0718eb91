"""What a driver does with the folder of an output, whatever it lies on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any, Literal, TypeAlias

from batchflow.io.stores.uri import Uri, is_uri, plain_path

if TYPE_CHECKING:
    from pathlib import Path

Place: TypeAlias = "Path | Uri"


class Store(ABC):
    """Folders and files, or what stands for them; every method raises `OSError` where it cannot."""

    @abstractmethod
    def kind(self, place: Place) -> Literal["file", "folder"] | None:
        """Return what is at a place, ``None``: nothing."""

    @abstractmethod
    def size(self, place: Place) -> int | None:
        """Return the bytes of a file, ``None`` where there is none."""

    @abstractmethod
    def sizes(self, folder: Place) -> dict[str, int | None]:
        """Return the bytes of each file in a folder by its name, ``None`` for a folder in it; one look for all."""

    @abstractmethod
    def open(self, place: Place) -> IO[bytes]:
        """Return a stream of the bytes of a file."""

    @abstractmethod
    def put(self, place: Place, data: Any) -> None:
        """Write the bytes of a file to which nothing refers yet; they can be relied on when this returns."""

    @abstractmethod
    def write(self, place: Place, data: Any) -> None:
        """Have bytes take the place of what is there, at one stroke."""

    @abstractmethod
    def move(self, old: Place, new: Place) -> None:
        """Have a file take the place of another one, at one stroke and for good."""

    @abstractmethod
    def digest(self, place: Place) -> str:
        """Return what tells the content of a file from any other."""

    @abstractmethod
    def make(self, folder: Place) -> None:
        """Make a folder, and those around it."""

    @abstractmethod
    def remove(self, places: Iterable[Place]) -> None:
        """Remove files; one that is not there is no error."""

    @abstractmethod
    def remove_all(self, folder: Place) -> None:
        """Remove a folder and all that is in it, as far as it can be."""

    def read(self, place: Place) -> bytes:
        """Return the bytes of a file."""
        with self.open(place) as file:
            return file.read()


META = "_batchflow"
"""Suffix of a metadata folder: ``.clean_batchflow/`` is that of ``clean/``."""


def meta_of(output: Place) -> Place:
    """Return the metadata folder of an output."""
    return output.with_name(f".{output.name}{META}")


def output_of(meta: Place) -> Place:
    """Return the output of a metadata folder."""
    return meta.with_name(meta.name.removeprefix(".").removesuffix(META))


def place_of(text: str) -> Place:
    """Return the place that a path or a URI names; a relative path starts from where the program is now."""
    from pathlib import Path  # 5 ms, which results in memory need not wait for

    text = plain_path(text)
    return Uri(text.rstrip("/")) if is_uri(text) else Path(text).absolute()


def store_of(place: Place) -> Store:
    """Return what works on a place."""
    if isinstance(place, Uri):
        from batchflow.io.stores.object_store import Objects  # who writes to a disk needs it never

        return Objects()
    from batchflow.io.stores.local import Local

    return Local()
