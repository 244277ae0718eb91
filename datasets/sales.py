"""Sales as a spreadsheet exports them: CSV with line breaks and quotes inside of cells."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any

from datasets.making import SEED, make_once, within
from datasets.words import COUNTRIES, FIRST, LAST, ODDITIES, PRODUCTS, WORDS

COLUMNS = ["order", "day", "customer", "country", "product", "quantity", "price", "paid", "note"]
_START = date(2024, 1, 1)


def sales_csv(size: int, *, crlf: bool = False, seed: int = SEED) -> Path:
    """Return a CSV file of sales, of a size in bytes, its records ended by LF or by CRLF."""
    name = f"sales-{size}-{'crlf' if crlf else 'lf'}-{seed}.csv"
    return make_once(name, within(_records(Random(seed), "\r\n" if crlf else "\n"), size))


class _Echo:
    """A file that gives back what is written: `csv.writer` then returns each record's text."""

    def write(self, text: str) -> str:
        """Return the text."""
        return text


def _records(rng: Random, ending: str) -> Iterator[bytes]:
    """Yield the header, then sales without end; line breaks inside of cells are LF, as Excel writes them."""
    encode = csv.writer(_Echo(), lineterminator=ending).writerow
    yield encode(COLUMNS).encode()
    order = 100_000
    while True:
        order += 1 + int(rng.random() * 3)
        yield encode(_sale(rng, order)).encode()


def _sale(rng: Random, order: int) -> list[Any]:
    draw, choice = rng.random, rng.choice
    note = " ".join(rng.choices(WORDS, k=int(draw() * 8)))
    if draw() < 0.15:
        note = f'{note}\n"{choice(ODDITIES)}"'
    return [
        order,
        _START + timedelta(days=order // 997),
        f"{choice(FIRST)} {choice(LAST)}",
        choice(COUNTRIES),
        choice(PRODUCTS),
        1 + int(draw() * draw() * 12),
        f"{draw() * 400:.2f}" if draw() > 0.02 else "",
        draw() < 0.9,
        note,
    ]
