"""The log of a job that runs elsewhere, as it is shown here: its lines, and its progress in one place."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import metadata
from typing import TextIO

from batchflow.cli.submit.job_server import JobInfo
from batchflow.core.text import printable
from batchflow.reporting.progress.terminal import MARK

_RAY = re.compile(r"Running entrypoint for job |\d{4}-\d\d-\d\d .*\b(INFO|WARNING) job_manager\.py")
_CLEAR = "\r\x1b[K"


class LogPrinter:
    """Hears the text of a log in pieces, and shows its lines.

    Parameters
    ----------
    show
        Prints a line.
    terminal
        Where progress is shown; nowhere if it is no terminal.
    """

    def __init__(self, show: Callable[[str], None], terminal: TextIO | None) -> None:
        self._show = show
        self._terminal = terminal if terminal is not None and terminal.isatty() else None
        self._left = ""
        self._drawn = False
        self._missing: str | None = None

    def hear(self, text: str) -> None:
        """Show the lines that are whole by now."""
        *lines, self._left = (self._left + text).split("\n")
        for line in lines:
            self._line(line)

    def close(self) -> None:
        """Show what has no line end, and leave a clean line."""
        if self._left:
            self._line(self._left)
            self._left = ""
        self._clear()

    def _line(self, line: str) -> None:
        if line.startswith(MARK):
            self._draw(line.removeprefix(MARK).strip())
        elif not _RAY.match(line):
            self._clear()
            if found := re.search(r"No module named '?([\w-]+)", line):
                self._missing = found[1]
            self._show(printable(line.expandtabs()))

    def _draw(self, text: str) -> None:
        if self._terminal is not None:
            self._terminal.write(_CLEAR + printable(text))
            self._terminal.flush()
            self._drawn = True

    def _clear(self) -> None:
        if self._drawn and self._terminal is not None:
            self._terminal.write(_CLEAR)
            self._terminal.flush()
            self._drawn = False

    def why(self, job: JobInfo) -> str | None:
        """Return what to do about a job that could not do its work, where that can be told."""
        if job.status != "FAILED":
            return None
        if job.exit_code is None:
            return f"{job.id} could not begin: {job.message}"
        if job.exit_code == 127:
            return "the head node of the cluster has no `python` on its PATH"
        if self._missing == "ray":
            return (
                "the `python` on the PATH of the cluster's head node is one without Ray: put the one that Ray was "
                "started with first there, as activating its environment before `ray start` does"
            )
        if self._missing is not None:
            wanted = _ours() if self._missing in _ours() else [self._missing]
            return f"the cluster has no package {self._missing!r}: submit it with {' '.join(map(_asked, wanted))}"
        return None


def _asked(package: str) -> str:
    return f"--pip {package}"


def _ours() -> list[str]:
    """Return the packages that batchflow itself needs, but for Ray, which a cluster has."""
    try:
        wanted = metadata.requires("batchflow") or []
    except metadata.PackageNotFoundError:
        return []
    names = [re.split(r"[^\w-]", one)[0] for one in wanted if "extra ==" not in one]
    return [name for name in names if name != "ray"]
