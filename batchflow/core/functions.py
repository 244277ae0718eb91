"""How a function is named, and how it may be called: one call after the other, in threads, in an asyncio loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

SIDE_BY_SIDE = 100
"""Calls of an async function at once in each worker, where the job does not say: as many as aiohttp connects."""


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether calling a function gives what is to be awaited: ``async def``, with ``yield`` or without."""
    while isinstance(fn, partial):
        fn = fn.func
    return any(
        check(made)
        for made in (fn, getattr(fn, "__call__", None))  # noqa: B004 - an object may have an async one
        for check in (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    )


def side_by_side(fn: Callable[..., Any], concurrency: int | None) -> int | None:
    """Return how many calls of a function run at once in a worker; ``None``: one after the other."""
    return concurrency or (SIDE_BY_SIDE if is_async(fn) else None)


def describe(fn: Callable[..., Any]) -> str:
    """Return the name of a function and where it stands."""
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return f"{getattr(fn, '__module__', '?')}.{name}"
