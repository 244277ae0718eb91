"""Less frequent garbage collection while many objects are held and none is garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_OBJECTS = 50_000
"""Allocations between collections; the default of Python is 700."""
_lock = Lock()
_before: list[tuple[int, int, int]] = []
"""Thresholds before the first active context, once for each active context."""


@contextmanager
def relaxed_gc() -> Iterator[None]:
    """Make garbage collection less frequent in all threads; a disabled collector stays disabled."""
    with _lock:
        now = gc.get_threshold()
        _before.append(_before[0] if _before else now)
        if now[0]:
            gc.set_threshold(max(now[0], _OBJECTS), *now[1:])
    try:
        yield
    finally:
        with _lock:
            before = _before.pop()
            if not _before:
                gc.set_threshold(*before)
