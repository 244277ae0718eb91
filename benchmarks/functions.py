"""The functions that the contestants map: one copy, so that all of them do the same work."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

CORES = 2
"""Processes that each contestant may use."""


def square(number: int) -> int:
    """Return a number times itself: next to nothing, so what is timed is the machinery."""
    return number * number


def clean(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event of `datasets.events_jsonl` as a flat row: the work of many a first job."""
    user = event["user"]
    time = datetime.fromisoformat(event["time"])
    return {
        "id": event["id"],
        "time": time,
        "weekday": time.weekday(),
        "kind": event["kind"],
        "country": user["country"],
        "customer": " ".join(unicodedata.normalize("NFC", user["name"]).casefold().split()),
        "revenue": round(event["price"] * event["quantity"], 2),
        "coupon": event["coupon"],
        "tags": len(event["tags"]),
    }


def same(value: Any) -> Any:
    """Return an argument as it is: a step that does nothing."""
    return value


def diamond(step: Callable[..., Any], count: int) -> Any:
    """Write a step, two that take it and one that takes both; it is always four of them."""
    del count
    first = step(same, 1)
    return step(same, [step(same, first), step(same, first)])


def chain(step: Callable[..., Any], count: int) -> Any:
    """Write steps that each take the one before."""
    last = step(same, 0)
    for _ in range(count - 1):
        last = step(same, last)
    return last


def wide(step: Callable[..., Any], count: int) -> Any:
    """Write steps that take nothing of each other, and one that counts them."""
    return step(len, [step(same, number) for number in range(count)])


GRAPHS: dict[str, Callable[[Callable[..., Any], int], Any]] = {"diamond": diamond, "chain": chain, "wide": wide}
"""Each is written with a function that adds a step and returns what stands for its value."""


def windowed(task: Any, arguments: Iterable[Any], window: int) -> list[Any]:
    """Return what plain Ray tasks give, in order, with so many at Ray at a time."""
    import ray

    values: dict[int, Any] = {}
    running: dict[Any, int] = {}

    def take(count: int) -> None:
        done, _ = ray.wait(list(running), num_returns=count)
        for reference in done:
            values[running.pop(reference)] = ray.get(reference)

    for number, argument in enumerate(arguments):
        running[task.remote(argument)] = number
        if len(running) >= window:
            take(1)
    take(len(running))
    return [values[number] for number in range(len(values))]
