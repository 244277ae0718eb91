"""Python's look for garbage in cycles, made seldom while many objects are held of which none is garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_OBJECTS = 50_000
"""New objects after which Python looks; by itself it does after 700, over and over again."""
_lock = Lock()
_before: list[tuple[int, int, int]] = []
"""What was set before the first of those that ask for it now; each of them stands here once."""


@contextmanager
def relaxed_gc() -> Iterator[None]:
    """Have Python look seldom, in all threads; a program that switched it off keeps that."""
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
