"""Journal of an output on a disk: one locked, append-only file with background fsync."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from batchflow.checkpoint.history import LEDGER, History
from batchflow.checkpoint.ledger_reader import whole_lines
from batchflow.errors import DestinationError
from batchflow.io.stores import output_of


class Journal(Protocol):
    """Storage of the lines of a ledger."""

    @property
    def marks(self) -> dict[str, Any]:
        """Fields that identify the driver in the line of a run, for journals without a lock."""

    def write(self, data: bytes) -> None:
        """Append whole lines."""

    def soon(self, paths: Iterable[str]) -> None:
        """Schedule an fsync of pieces, then of all lines."""

    def sync(self, *, ended: bool = False) -> None:
        """Block until all lines so far are durable; ``ended`` marks the last one of the job."""

    def sync_pieces(self, paths: Iterable[str]) -> None:
        """Block until pieces are durable."""

    def refuse_others(self) -> None:
        """Raise `DestinationError` if another run has taken over."""

    def close(self) -> None:
        """Sync all lines and release the ledger."""


class FileJournal(Journal):
    """Locked file that no other run can open.

    Raises
    ------
    DestinationError
        If another run has it open, or has gone on with it since.
    """

    def __init__(self, meta: Path, history: History) -> None:
        self._file = os.open(meta / LEDGER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(self._file, meta)
            self._check_tail(meta, history)
        except BaseException:
            os.close(self._file)
            raise
        self._syncer = BackgroundSync(self._sync)

    def _check_tail(self, meta: Path, history: History) -> None:
        """Truncate a half-written line; refuse lines of another run."""
        with (meta / LEDGER).open("rb") as file:
            file.seek(history.size)
            more = next(whole_lines(file), None)
        if more is not None:
            raise gone_on(meta)
        os.ftruncate(self._file, history.size)
        os.lseek(self._file, history.size, os.SEEK_SET)

    @property
    def marks(self) -> dict[str, Any]:
        """No fields: the file is locked."""
        return {}

    def write(self, data: bytes) -> None:
        """Append lines."""
        self._syncer.check()
        while data:
            data = data[os.write(self._file, data) :]

    def soon(self, paths: Iterable[str]) -> None:
        """Schedule an fsync of files, then of the ledger, on another thread."""
        self._syncer.soon(paths)

    def _sync(self, paths: list[str]) -> None:
        self.sync_pieces(paths)
        os.fsync(self._file)

    def sync(self, *, ended: bool = False) -> None:
        """Block until everything written so far is on disk."""
        del ended
        self._syncer.check()
        os.fsync(self._file)

    def sync_pieces(self, paths: Iterable[str]) -> None:
        """Block until pieces are on disk."""
        for path in paths:
            _sync_file(path)

    def refuse_others(self) -> None:
        """Do nothing: the file is locked."""

    def close(self) -> None:
        """Sync and release the ledger."""
        self._syncer.close()
        fcntl.flock(self._file, fcntl.LOCK_UN)  # a fork that the function left running may hold it too
        os.close(self._file)


def refuse_locked(meta: Path) -> None:
    """Raise `DestinationError` if a run has the ledger of a folder open."""
    with suppress(FileNotFoundError):
        file = os.open(meta / LEDGER, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _lock(file, meta)
        finally:
            os.close(file)


def _lock(file: int, meta: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise busy(meta) from error


def busy(meta: Any) -> DestinationError:
    """Return the error for an output that another run is writing to."""
    return DestinationError(f"another run is writing to {output_of(meta)}: wait for its end, or write elsewhere")


def gone_on(meta: Any) -> DestinationError:
    """Return the error for an output that another run resumed since it was planned."""
    return DestinationError(f"another run has gone on with {output_of(meta)} meanwhile: run this one again")


def _sync_file(path: str) -> None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return  # it is in a part by now
    try:
        os.fsync(file)
    finally:
        os.close(file)


SYNC_SECONDS = 0.5
"""Maximum seconds between syncs; a part is always synced before it is visible."""


class BackgroundSync:
    """Background fsync of ledger and pieces.

    Parameters
    ----------
    sync
        Does it, with the paths that came since the last time.
    """

    def __init__(self, sync: Callable[[list[str]], None]) -> None:
        self._sync = sync
        self._paths: list[str] = []
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def check(self) -> None:
        """Raise the error of a failed sync; the kernel reports it only once."""
        if self._error is not None:
            raise self._error

    def soon(self, paths: Iterable[str]) -> None:
        """Schedule an fsync of files, then of the ledger, within `SYNC_SECONDS` plus its duration."""
        with self._lock:
            self._paths.extend(paths)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="batchflow-sync", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        going = True
        while going:
            going = not self._ending.wait(SYNC_SECONDS)
            with self._lock:
                paths, self._paths = self._paths, []
            try:
                self._sync(paths)
            except Exception as error:
                self._error = error

    def close(self) -> None:
        """Sync the remaining paths and end the thread."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
