"""``python -m benchmarks [SUITE ...]``: run races and print their standings."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any

from benchmarks.harness import Suite, race
from benchmarks.tables import as_json, machine, markdown

SUITES = (
    "start",
    "warm",
    "tiny",
    "files",
    "one_file",
    "csv",
    "columns",
    "results",
    "failing",
    "retry_failed",
    "skew",
    "waiting",
    "many_chunks",
    "ray",
    "memory",
    "safety",
    "flow",
    "cluster",
)


def main() -> None:
    """Run the suites that the command line names, all by default."""
    options = _options()
    results: dict[str, Any] = {"before": machine(), "scale": options.scale, "suites": {}}
    print(", ".join(f"{name} {value}" for name, value in results["before"].items()))
    for name in options.suites or SUITES:
        for title, suite in _suites(name, options.scale).items():
            results["suites"][title] = _answer(title, suite, options.rounds)
    results["load_after"] = machine()["load"]
    print(f"\nload after: {results['load_after']:.2f}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each contestant (default: 5)")
    parser.add_argument("--scale", type=float, default=1.0, help="size of the inputs (default: 1.0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save all values")
    options = parser.parse_args()
    if unknown := set(options.suites) - set(SUITES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    return options


def _suites(name: str, scale: float) -> dict[str, Suite]:
    """Return the races of a suite by title: most are one."""
    module = importlib.import_module(f"benchmarks.suites.{name}")
    return module.suites(scale) if hasattr(module, "suites") else {name: module.suite(scale)}


def _answer(title: str, suite: Suite, rounds: int) -> dict[str, Any]:
    """Run one race, print its question and answer, and return both."""
    print(f"\n## {title}\n\n{suite.question.strip()}\n", flush=True)
    standings = race(suite, rounds)
    print(markdown(suite, standings), flush=True)
    return as_json(suite, standings)


if __name__ == "__main__":
    main()
