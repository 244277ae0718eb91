"""``python -m benchmarks.chart RESULTS.json CHART.png``: the standings of ``--json`` as a picture and a table.

Each suite has a panel, each contestant a bar of its median with a line from its least to its largest value. Ours
is dark, the limit (the same work by hand) hollow.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

COLUMNS = 3
_OURS, _OTHERS, _INK = "#0b5394", "#b7c9de", "#333333"
_UNITS = {"megabytes": "MB", "together": "MB", "percent": "%", "step": "ms a step"}


def main() -> None:
    """Draw the chart, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chart", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("chart", type=Path)
    options = parser.parse_args()
    results = json.loads(options.results.read_text(encoding="utf-8"))
    draw(results["suites"], options.chart)
    print("\n".join(table(results["suites"])))


def table(suites: dict[str, Any]) -> list[str]:
    """Return a line for each suite: ours, and how the others compare."""
    lines = ["| suite | ours | ours / theirs |", "|---|---:|---|"]
    for name, suite in suites.items():
        ours, *others = suite["contestants"]
        told = ", ".join(f"{one['name'].partition(':')[0]} {one['ratio']:.2f}" for one in others)
        lines.append(f"| {name} | {ours['median']:.3g} {_unit(suite)} | {told} |")
    return lines


def _unit(suite: dict[str, Any]) -> str:
    return _UNITS.get(suite["measure"], "s")


def draw(suites: dict[str, Any], path: Path) -> None:
    """Draw a panel for each suite."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = -(-len(suites) // COLUMNS)
    most = max(len(suite["contestants"]) for suite in suites.values())
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(12, rows * (0.7 + 0.19 * most)), squeeze=False)
    panels = [panel for row in axes for panel in row]
    for panel, (name, suite) in zip(panels, suites.items(), strict=False):
        _panel(panel, name, suite)
    for panel in panels[len(suites) :]:
        panel.set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _panel(panel: Any, name: str, suite: dict[str, Any]) -> None:
    contestants = suite["contestants"]
    for at, one in enumerate(contestants):
        limit = one["name"].startswith("limit")
        colour = _OURS if at == 0 else "white" if limit else _OTHERS
        panel.barh(at, one["median"], color=colour, edgecolor=_INK if limit else colour, height=0.68)
        panel.hlines(at, min(one["values"]), max(one["values"]), color=_INK, linewidth=1)
        panel.text(one["median"], at, f"  {one['median']:.3g}", va="center", fontsize=7.5, color=_INK)
    panel.set_yticks(range(len(contestants)), [one["name"] for one in contestants], fontsize=7.5)
    panel.invert_yaxis()
    panel.margins(x=0.14)
    panel.set_title(f"{name}, {_unit(suite)}", fontsize=9, loc="left", fontweight="bold", color=_INK)
    panel.tick_params(axis="x", labelsize=7, colors=_INK)
    panel.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)


if __name__ == "__main__":
    main()
