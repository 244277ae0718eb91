"""Journal of an output on an object store: one segment per sync.

A store has no locks. A driver that is about to write looks whether what it wrote last is still its own
and whether the next name is free: if not, another run writes to the same output, and this one stops. Two
that look at the same instant both go on, and the one whose segment was written over stops at its next.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from batchflow.checkpoint.file_journal import BackgroundSync, Journal, busy, gone_on
from batchflow.checkpoint.history import LEDGER, History
from batchflow.checkpoint.ledger_reader import FOLDER, read_all, segment
from batchflow.io.stores import Uri, store_of

MANY = 500
"""Segments merged into one object, so that a listing takes one request and a read takes seconds."""


class ObjectJournal(Journal):
    """Journal on an object store.

    Raises
    ------
    DestinationError
        If another run has gone on with them since.
    """

    def __init__(self, meta: Uri, history: History) -> None:
        self._meta = meta
        self._store = store_of(meta)
        self._all = tempfile.TemporaryFile()  # noqa: SIM115 - what becomes one object in the end; it has no name
        self._size = self._all.write(read_all(meta))
        """Bytes of the lines at the store."""
        if self._size != history.size:
            self._all.close()
            raise gone_on(meta)
        self._many = 0
        self._last: tuple[Uri, bytes] | None = None
        self._pending = bytearray()
        self._lock = threading.Lock()
        self._alone = True
        self._syncer = BackgroundSync(lambda _: self._put())

    @property
    def marks(self) -> dict[str, Any]:
        """Random number of this driver, so that two drivers never write the same lines."""
        return {"driver": os.urandom(8).hex()}

    def write(self, data: bytes) -> None:
        """Append lines."""
        self._syncer.check()
        with self._lock:
            self._pending += data

    def soon(self, paths: Iterable[str]) -> None:
        """Schedule an upload of the lines on another thread; pieces are there already."""
        self._syncer.soon(paths)

    def sync(self, *, ended: bool = False) -> None:
        """Block until everything written so far is at the store."""
        self._syncer.check()
        self._put(ended=ended)

    def sync_pieces(self, paths: Iterable[str]) -> None:
        """Do nothing: objects are durable once written."""

    def _put(self, *, ended: bool = False) -> None:
        """Upload new lines as a segment, or all lines as one object."""
        with self._lock:
            if not self._pending:
                return
            self._check_alone()
            data = bytes(self._pending)
            if not ended:
                self._store.put(segment(self._meta, self._size), data)
                self._last, self._many = (segment(self._meta, self._size), data), self._many + 1
            self._pending.clear()
            self._all.write(data)
            self._size += len(data)
            if ended or self._many >= MANY:
                self._fold()

    def _fold(self) -> None:
        """Merge all lines into one object."""
        self._all.flush()
        with mmap.mmap(self._all.fileno(), 0, access=mmap.ACCESS_READ) as lines:
            self._store.write(self._meta / LEDGER, lines)
        self._store.remove_all(self._meta / FOLDER)
        self._last, self._many = None, 0

    def refuse_others(self) -> None:
        """Raise `DestinationError` if another run has taken over."""
        with self._lock:
            self._check_alone()

    def _check_alone(self) -> None:
        """Raise `DestinationError` if another run writes to the same ledger."""
        new = segment(self._meta, self._size)
        mine = self._last is None or self._content(self._last[0]) == self._last[1]
        taken = self._content(new)  # by ourselves, if an error or Ctrl-C came when it was there already
        self._alone = self._alone and mine and (taken is None or bytes(self._pending).startswith(taken))
        if not self._alone:
            raise busy(self._meta)

    def _content(self, place: Uri) -> bytes | None:
        try:
            return self._store.read(place)
        except FileNotFoundError:
            return None

    def close(self) -> None:
        """Upload the remaining lines."""
        self._syncer.close()
        try:
            if self._alone:
                with suppress(OSError):  # the reason for the end is on its way; what is lost is done once more
                    self._put()
        finally:
            self._all.close()
