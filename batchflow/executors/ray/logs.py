"""What a Ray of our own has to say: kept in one file, since its own folder goes with it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

KEPT = 5
"""Files of Rays before, the newest ones."""
LARGEST = 100_000
"""Bytes of one of Ray's own files, its end: what went wrong stands there."""
FILES = 200
"""Of Ray's own ones at most: it has a few for each worker."""
_STATE = frozenset({"debug_state.txt", "export_events"})
"""Names of what tells how Ray stands, and not what happened."""
_FORM = logging.Formatter("%(asctime)s %(levelname)s %(filename)s:%(lineno)s -- %(message)s")


def folder() -> Path:
    """Return where programs of a user leave what they log, by the XDG Base Directory Specification."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(state) / "batchflow"


class RayLogs:
    """The messages of one Ray: those of this process as they come, those of its daemons once it has stopped.

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
        """Begin a file, and have what Ray says in this process go there; only errors go on to the terminal."""
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
        """End the file with what the daemons and workers of a Ray that has stopped wrote to theirs."""
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
    """Yield names and ends of the files that say anything, in the order they were last written."""
    found = [path for path in logs.rglob("*") if path.is_file() and _STATE.isdisjoint(path.parts)]
    found = [path for path in found if path.stat().st_size]
    for path in sorted(found, key=lambda path: path.stat().st_mtime)[-FILES:]:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LARGEST))
            yield str(path.relative_to(logs)), file.read().rstrip(b"\n") + b"\n"
