"""Disk cache of step results: tables as Arrow or Parquet, other values as JSON, never as pickles.

A cached file appears only once it is complete. A note next to it records the key of the function and
arguments that produced it, so an identical step need not run again.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from batchflow.core.text import one
from batchflow.errors import SchemaError
from batchflow.io.arrow.convert import as_table, is_frame
from batchflow.io.arrow.schema import plain
from batchflow.io.formats.base import digest

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES: Final = (".arrow", ".parquet", ".json")


class CachedValue(NamedTuple):
    """Cached value on disk."""

    path: str
    digest: str
    """Hash of the file."""

    def open(self) -> Any:
        """Read and return the value."""
        if self.path.endswith(".json"):
            with open(self.path, encoding="utf-8") as file:
                return json.load(file)
        if self.path.endswith(".parquet"):
            import pyarrow.parquet as pq

            return pq.read_table(self.path)
        import pyarrow as pa

        with pa.memory_map(self.path) as file:
            return pa.ipc.open_file(file).read_all()


class CacheEntry(NamedTuple):
    """Cache location of one step's value."""

    path: str
    """Path of the value; without a suffix, the kind of the value decides the suffix."""
    key: str
    """Hash of the function and arguments that produce the value; ``""`` if they cannot be compared."""

    @property
    def _note(self) -> str:
        """Path of the note that records the key and hash of the value."""
        folder, name = os.path.split(self.path)
        return os.path.join(folder, f".{name}_batchflow.json")

    def find(self) -> CachedValue | None:
        """Return the cached value if it has this key and its file is unchanged."""
        try:
            with open(self._note, encoding="utf-8") as file:
                note = json.load(file)
            if self.key and note["key"] == self.key and digest(note["path"]) == note["digest"]:
                return CachedValue(note["path"], note["digest"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # nothing cached, or nothing trustworthy
        return None

    def keep(self, value: Any) -> CachedValue:
        """Write a value to the cache; a frame is stored as a table.

        Raises
        ------
        SchemaError
            If it is neither a table nor a value that survives a JSON round trip.
        """
        kept = self._write(value)
        note = {"key": self.key, "path": kept.path, "digest": kept.digest}
        _replace(self._note, json.dumps(note).encode())
        return kept

    def _write(self, value: Any) -> CachedValue:
        is_table = is_frame(value)
        suffix = os.path.splitext(self.path)[1]
        path = self.path if suffix in SUFFIXES else self.path + (".arrow" if is_table else ".json")
        if is_table != (not path.endswith(".json")):
            message = (
                f"{path} cannot hold {one(type(value).__qualname__)}: tables are kept as .arrow or .parquet, "
                "other values as .json"
            )
            raise SchemaError(message)
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        new = f"{path}.{os.urandom(8).hex()}.new"
        try:
            _write_table(plain(as_table(value)), new) if is_table else _write_json(value, new)
            _sync(new)
            kept = CachedValue(path, digest(new))
            os.replace(new, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(new)
            raise
        return kept


def _write_table(table: pa.Table, path: str) -> None:
    if ".parquet." in os.path.basename(path):
        import pyarrow.parquet as pq

        pq.write_table(table, path)
        return
    import pyarrow as pa

    with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _write_json(value: Any, path: str) -> None:
    """Write a value as JSON if it survives the round trip; only tuples may become lists."""
    try:
        text = json.dumps(value)
        lossless = json.loads(text) == _as_lists(value)
    except (TypeError, ValueError) as error:
        message = f"{one(type(value).__qualname__)} cannot be kept: {error}; give a table, or what JSON holds"
        raise SchemaError(message) from error
    if not lossless:
        message = "JSON would not give the same value back: give a table, or what JSON holds, with text as keys"
        raise SchemaError(message)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _as_lists(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_lists(one) for one in value]
    if isinstance(value, dict):
        return {key: _as_lists(one) for key, one in value.items()}
    return value


def _replace(path: str, data: bytes) -> None:
    """Replace a small file atomically."""
    new = f"{path}.{os.urandom(8).hex()}.new"
    with open(new, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def _sync(path: str) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
