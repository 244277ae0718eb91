"""What is sent to a cluster: a folder without what nobody needs there, as one zip file.

Not left to Ray, which leaves out what ``.gitignore`` names (the data beside the code, mostly), tells that
a folder is too large only after it has packed it, and gives all files the time at which it unpacked them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from batchflow.errors import UsageError

LIMIT = 500 * 1024**2
"""Bytes at most: what the head node of Ray keeps of one package."""

_TIMES = ".batchflow-times.json"
_NEVER = ("__pycache__", "node_modules", "*.pyc")
_PIECE = 1 << 20


class CodePackage:
    """A folder that is to be sent.

    Parameters
    ----------
    root
        The folder.
    excluded
        Names, or paths from the folder on, that stay here; ``*`` and ``?`` stand for what they do in a shell.

    Raises
    ------
    UsageError
        If there is no such folder, or what is to be sent of it is too large.
    """

    def __init__(self, root: Path, excluded: Sequence[str] = ()) -> None:
        if not root.is_dir():
            message = f"there is no folder {str(root)!r} that could be sent to the cluster"
            raise UsageError(message)
        self.root = root
        self._excluded = [*_NEVER, *(pattern.removeprefix("./").rstrip("/") for pattern in excluded)]
        self.files: dict[str, os.stat_result] = {}
        """What is sent, by its path from the folder on."""
        total = 0
        for name, status in self._walk():
            self.files[name] = status
            total += status.st_size
            if total > LIMIT:
                self._refuse(total)

    def _walk(self) -> Iterator[tuple[str, os.stat_result]]:
        for folder, names, files in os.walk(self.root):
            inside = Path(folder).relative_to(self.root)
            names[:] = sorted(name for name in names if not self._stays(inside / name))
            for name in sorted(files):
                path = self.root / inside / name
                if not self._stays(inside / name) and path.is_file():  # neither a pipe nor a link to nowhere
                    yield (inside / name).as_posix(), path.stat()

    def _stays(self, path: Path) -> bool:
        hidden = path.name.startswith(".")
        named = any(fnmatch(path.name, one) or fnmatch(path.as_posix(), one) for one in self._excluded)
        return hidden or named or (self.root / path / "pyvenv.cfg").exists()

    def _refuse(self, total: int) -> None:
        sizes: dict[str, int] = {}
        for name, status in self.files.items():
            first = name.partition("/")[0]
            sizes[first] = sizes.get(first, 0) + status.st_size
        largest = max(sizes, key=lambda name: sizes[name])
        message = (
            f"{self.root} has {total / 1024**2:,.0f} MiB and more, {sizes[largest] / 1024**2:,.0f} of it in "
            f"{largest!r}, and a cluster takes {LIMIT / 1024**2:,.0f} MiB of code: leave data out with "
            f"--exclude {largest!r}, name a smaller --working-dir, and read large inputs from where the "
            "cluster reaches them"
        )
        raise UsageError(message)

    def holds(self, path: str) -> bool:
        """Return whether a file, or something in a folder, is sent."""
        inside = os.path.normpath(path)
        return inside in self.files or any(name.startswith(f"{inside}/") or inside == "." for name in self.files)

    def digest(self) -> str:
        """Return digits that tell of names and contents."""
        total = hashlib.sha256()
        for name in self.files:
            with (self.root / name).open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{name}\0{content}\0".encode("utf-8", "surrogateescape"))
        return total.hexdigest()

    def write(self, path: Path) -> None:
        """Write the zip file: the same bytes for the same files, so that Ray knows what it has already."""
        times = {name: status.st_mtime_ns for name, status in self.files.items()}
        with ZipFile(path, "w", ZIP_DEFLATED) as archive:
            archive.writestr(_entry(_TIMES, 0o644), json.dumps(times))
            for name, status in self.files.items():
                with (
                    (self.root / name).open("rb") as source,
                    archive.open(_entry(name, status.st_mode), "w") as target,
                ):
                    while piece := source.read(_PIECE):
                        target.write(piece)


def _entry(name: str, mode: int) -> ZipInfo:
    entry = ZipInfo(name)  # of 1980, whatever the time
    entry.compress_type = ZIP_DEFLATED
    entry.external_attr = (mode & 0o777 | 0o600) << 16
    return entry


def restore_mtimes() -> None:
    """Give the files of a parcel that is unpacked here their times again: an input is known by size and time."""
    times = Path(_TIMES)
    if times.exists():
        for name, nanoseconds in json.loads(times.read_bytes()).items():
            os.utime(name, ns=(nanoseconds, nanoseconds))
