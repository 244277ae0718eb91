"""Events of a shop as its servers might log them: JSON Lines of 200 to 400 bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from datasets.making import SEED, make_once
from datasets.words import COUNTRIES, FIRST, LAST, ODDITIES, TAGS, WORDS

_START = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
_KINDS = ["view", "view", "view", "search", "basket", "purchase", "return"]
_AS_UTF8 = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_AS_ASCII = json.JSONEncoder(ensure_ascii=True).encode


def events_jsonl(size: int, seed: int = SEED) -> Path:
    """Return a JSON Lines file of events, of a size in bytes; a longer one begins with the same lines."""
    return make_once(f"events-{size}-{seed}.jsonl", _lines(Random(seed)), size)


def _lines(rng: Random) -> Iterator[bytes]:
    """Yield events without end; one server in eight writes pure ASCII, the rest of it escaped."""
    time = _START
    while True:
        time += rng.random()
        encode = _AS_ASCII if rng.random() < 0.125 else _AS_UTF8
        yield f"{encode(_event(rng, time))}\n".encode()


def _event(rng: Random, time: float) -> dict[str, Any]:
    draw, choice = rng.random, rng.choice
    moment = datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds")
    return {
        "id": f"{rng.getrandbits(64):016x}",
        "time": moment.replace("+00:00", "Z"),
        "kind": choice(_KINDS),
        "user": {
            "id": int(draw() * 1e8),
            "name": f"{choice(FIRST)}  {choice(LAST)}",
            "country": choice(COUNTRIES),
            "returning": draw() < 0.4,
        },
        "price": round(draw() * 400, 2),
        "quantity": 1 + int(draw() * draw() * 12),
        "place": {"lat": draw() * 180 - 90, "lon": draw() * 360 - 180},
        "tags": rng.sample(TAGS, int(draw() * 4)),
        "coupon": None if draw() < 0.7 else f"{rng.getrandbits(30):X}",
        "note": _note(rng),
    }


def _note(rng: Random) -> str:
    words = rng.choices(WORDS, k=1 + int(rng.random() * 9))
    if rng.random() < 0.2:
        words.append(rng.choice(ODDITIES))
    return " ".join(words)
