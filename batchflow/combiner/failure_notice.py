"""Warning about rows that are used before the errors were looked at."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

from batchflow.core.package import PACKAGE_DIR
from batchflow.errors import FailedRecordsWarning


class FailureNotice:
    """Warns once when rows are used before the errors were looked at.

    Parameters
    ----------
    message
        Returns the warning; ``None``: nothing failed, or the user has said how many may fail.
    """

    def __init__(self, message: Callable[[], str] | None = None) -> None:
        self._message = message

    def dismiss(self) -> None:
        """Suppress the warning, because the errors were looked at."""
        self._message = None

    def warn(self) -> None:
        """Emit the warning at the user's line that uses the rows."""
        message, self._message = self._message, None
        if message is not None:
            warnings.warn(message(), FailedRecordsWarning, stacklevel=_user_level())


def _user_level() -> int:
    """Return the ``stacklevel`` of the first frame outside batchflow, counted from `FailureNotice.warn`."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE_DIR):
        level, frame = level + 1, frame.f_back
    return level
