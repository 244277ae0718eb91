"""The functions that the contestants map: one copy, so that all of them do the same work."""

from __future__ import annotations

import unicodedata
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
