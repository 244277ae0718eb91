"""What steps of a flow gave, kept on disk: tables as Arrow or Parquet, anything else as JSON, never as pickles.

A file stands there only when it is whole. Its name, or the note beside it, tells the function and the
arguments that it came of, so whoever would get the same need not run again.
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
    """A value on disk."""

    path: str
    digest: str
    """Of the file: that of another value is another."""

    def open(self) -> Any:
        """Return the value."""
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
    """Where a step keeps what it gives."""

    path: str
    """Without a suffix where that follows the kind of the value."""
    key: str
    """Digits of what the value comes of; ``""``: nobody can tell."""

    @property
    def _note(self) -> str:
        """File beside the value that tells what it comes of and what it is."""
        folder, name = os.path.split(self.path)
        return os.path.join(folder, f".{name}_batchflow.json")

    def find(self) -> CachedValue | None:
        """Return the value that is kept here, if it is of this key and was not changed since."""
        try:
            with open(self._note, encoding="utf-8") as file:
                note = json.load(file)
            if self.key and note["key"] == self.key and digest(note["path"]) == note["digest"]:
                return CachedValue(note["path"], note["digest"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # nothing is kept here, or nothing that can be relied on
        return None

    def keep(self, value: Any) -> CachedValue:
        """Write a value; a frame is kept as a table.

        Raises
        ------
        SchemaError
            If it is neither a table nor what JSON gives back as it is.
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
    """Write what JSON gives back as it is, but for tuples, which it makes lists of."""
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
    """Write a small file, which is the old or the new one at any time."""
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
