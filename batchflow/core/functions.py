"""Names of functions and their concurrency: sequential calls, threads or an asyncio loop."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

SIDE_BY_SIDE = 100
"""Default number of concurrent calls of an async function in each worker: the connection limit of aiohttp."""


def is_async(fn: Callable[..., Any]) -> bool:
    """Whether calling a function returns an awaitable or async generator."""
    while isinstance(fn, partial):
        fn = fn.func
    return any(
        check(made)
        for made in (fn, getattr(fn, "__call__", None))  # noqa: B004 - an object may have an async one
        for check in (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    )


def side_by_side(fn: Callable[..., Any], concurrency: int | None) -> int | None:
    """Return the number of concurrent calls of a function in a worker; ``None``: sequential."""
    return concurrency or (SIDE_BY_SIDE if is_async(fn) else None)


def describe(fn: Callable[..., Any]) -> str:
    """Return the module and qualified name of a function."""
    name = getattr(fn, "__qualname__", None) or type(fn).__qualname__
    return f"{getattr(fn, '__module__', '?')}.{name}"
