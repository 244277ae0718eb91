"""Logs of a local Ray, collected in one file because its own folder is deleted."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

KEPT = 5
"""Number of older log files that are kept."""
LARGEST = 100_000
"""Maximum bytes from the end of each of Ray's own log files."""
FILES = 200
"""Maximum number of Ray's own log files; it has a few for each worker."""
_STATE = frozenset({"debug_state.txt", "export_events"})
"""Names of files with Ray's state rather than its events."""
_FORM = logging.Formatter("%(asctime)s %(levelname)s %(filename)s:%(lineno)s -- %(message)s")


def folder() -> Path:
    """Return the log folder of the user, by the XDG Base Directory Specification."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state) / "batchflow"


class RayLogs:
    """Log of one Ray: live messages of this process, then those of its daemons after it stopped.

    Attributes
    ----------
    path
        The file; none where it cannot be made.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self._handler: logging.Handler | None = None
        self._before: list[tuple[logging.Handler, int]] = []

    def open(self) -> None:
        """Open a log file and redirect Ray's messages of this process to it; only errors go to the terminal."""
        path = folder() / f"ray-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handler = logging.FileHandler(path, encoding="utf-8")
        except (OSError, RuntimeError):  # no home, or one that is read only: nothing is worth a job that fails
            return
        self.path = path
        for old in sorted(path.parent.glob("ray-*.log"))[: -KEPT - 1]:
            old.unlink(missing_ok=True)
        logger = logging.getLogger("ray")
        self._before = [(handler, handler.level) for handler in logger.handlers]
        for handler, level in self._before:
            handler.setLevel(max(level, logging.ERROR))
        self._handler.setFormatter(_FORM)
        logger.addHandler(self._handler)

    def close(self, logs: Path) -> None:
        """Append the logs of the daemons and workers of a stopped Ray, and close the file."""
        if self._handler is None or self.path is None:
            return
        logger = logging.getLogger("ray")
        logger.removeHandler(self._handler)
        for handler, level in self._before:
            handler.setLevel(level)
        self._handler.close()
        self._handler = None
        with suppress(OSError), self.path.open("ab") as file:
            for name, text in _ends(logs):
                file.write(b"\n==> " + name.encode() + b" <==\n" + text)


def _ends(logs: Path) -> Iterator[tuple[str, bytes]]:
    """Yield names and ends of the files with content, in the order of their last write."""
    found = [path for path in logs.rglob("*") if path.is_file() and _STATE.isdisjoint(path.parts)]
    found = [path for path in found if path.stat().st_size]
    for path in sorted(found, key=lambda path: path.stat().st_mtime)[-FILES:]:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LARGEST))
            yield str(path.relative_to(logs)), file.read().rstrip(b"\n") + b"\n"
