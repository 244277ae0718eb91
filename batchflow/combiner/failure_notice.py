"""One warning for rows that are used although records failed and nobody has looked at the errors."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

from batchflow.core.package import PACKAGE_DIR
from batchflow.errors import FailedRecordsWarning


class FailureNotice:
    """Warns once when rows are used, unless the failures were looked at before.

    Parameters
    ----------
    message
        Returns the warning; ``None``: nothing failed, or the user has said how many may fail.
    """

    def __init__(self, message: Callable[[], str] | None = None) -> None:
        self._message = message

    def dismiss(self) -> None:
        """Note that the failures were looked at."""
        self._message = None

    def warn(self) -> None:
        """Warn of the failures at the line of the user that uses the rows."""
        message, self._message = self._message, None
        if message is not None:
            warnings.warn(message(), FailedRecordsWarning, stacklevel=_user_level())


def _user_level() -> int:
    """Return the ``stacklevel`` of the first frame that is not ours, counted from `FailureNotice.warn`."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE_DIR):
        level, frame = level + 1, frame.f_back
    return level
