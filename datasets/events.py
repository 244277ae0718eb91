"""Events of a shop as its servers might log them: JSON Lines of 200 to 400 bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from datasets.making import SEED, gzipped, make_once, within
from datasets.words import COUNTRIES, FIRST, LAST, ODDITIES, TAGS, WORDS

_START = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
_KINDS = ["view", "view", "view", "search", "basket", "purchase", "return"]
_AS_UTF8 = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_AS_ASCII = json.JSONEncoder(ensure_ascii=True).encode


def events_jsonl(size: int, seed: int = SEED) -> Path:
    """Return a JSON Lines file of events, of a size in bytes; a longer one begins with the same lines."""
    return make_once(f"events-{size}-{seed}.jsonl", within(_lines(Random(seed)), size))


def events_gz(size: int, files: int = 40, largest: float = 0.15, seed: int = SEED) -> list[Path]:
    """Return gz files of very unequal size with so many bytes of events in all.

    Parameters
    ----------
    size
        Bytes before they are compressed.
    files
        How many; each is as large as its number, beside the last one.
    largest
        Share of the last one.
    """
    shares = [(1 - largest) * number / (files * (files - 1) / 2) for number in range(1, files)] + [largest]
    made = []
    for number, share in enumerate(shares):
        name = f"events-{size}-{files}-{number:03}-{seed}.jsonl.gz"
        plain = within(_lines(Random(seed * 1_000 + number)), int(size * share))
        made.append(make_once(name, gzipped(plain)))
    return made


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
