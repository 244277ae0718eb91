"""Make the small inputs of these pages in the present folder: the same ones each time."""

import gzip
import json
import random
from pathlib import Path

DAYS = [f"2024-01-{day:02}" for day in range(1, 9)]
COUNTRIES = ["DE", "FR", "JP", "PL", "BR", "US"]
KINDS = ["view", "view", "view", "search", "basket", "purchase"]


def event(rng, day, number):
    """Return one event of a shop."""
    price = round(rng.random() * 400, 2)
    if day == DAYS[4] and rng.random() < 0.01:
        price = f"{price:.2f}".replace(".", ",")  # one server writes decimal commas that day
    return {
        "id": f"{day}-{number:05}",
        "kind": rng.choice(KINDS),
        "country": rng.choice(COUNTRIES),
        "price": price,
        "quantity": rng.randint(1, 5),
    }


def main():
    """Write ``events/`` (8 days, gzip), ``sales/`` (3 months, CSV), ``notes/`` (6 texts) and ``urls.txt``."""
    rng = random.Random(1)
    for folder in ("events", "sales", "notes"):
        Path(folder).mkdir(exist_ok=True)
    for day in DAYS:
        lines = [json.dumps(event(rng, day, number)) for number in range(1, 2001)]
        if day == DAYS[5]:
            lines[1206] = lines[1206][:40]  # a server that died in the middle of a line
        with gzip.open(f"events/{day}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    for month in (1, 2, 3):
        sales = ["order,country,amount"]
        sales += [f"{month}{n:03},{rng.choice(COUNTRIES)},{rng.random() * 400:.2f}" for n in range(500)]
        Path(f"sales/2024-0{month}.csv").write_text("\n".join(sales) + "\n", encoding="utf-8")
    for number in range(6):
        words = " ".join(rng.choices(["red", "green", "blue", "grey"], k=50 * (number + 1)))
        Path(f"notes/{number}.txt").write_text(words + "\n", encoding="utf-8")
    urls = [f"https://example.org/{number}" for number in range(40)]
    Path("urls.txt").write_text("\n".join(urls) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
