"""A thread that does now and then what the loop of a job need not wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

SYNC_SECONDS = 0.5
"""How often what was written down is synced, at least; a part always is before it is visible."""


class Syncer:
    """A thread that syncs, so that the loop of the job need not wait for a disk or a store.

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
        """Raise what kept something from being synced: the kernel tells of it only once."""
        if self._error is not None:
            raise self._error

    def soon(self, paths: Iterable[str]) -> None:
        """Have files, and then the ledger, synced within `SYNC_SECONDS`, and what syncing itself takes."""
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
        """Sync what is left and end the thread."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
