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


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _unit(suite: dict[str, Any]) -> str:
    return _UNITS.get(suite["measure"], "s")


def draw(suites: dict[str, Any], path: Path) -> None:
    """Draw a panel for each suite."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    suites = {name: suite for name, suite in suites.items() if len(suite["contestants"]) > 1}
    counts = [len(suite["contestants"]) for suite in suites.values()]
    most = [max(counts[at : at + COLUMNS]) for at in range(0, len(counts), COLUMNS)]
    heights = [0.8 + 0.2 * count for count in most]
    figure, axes = plt.subplots(
        len(most), COLUMNS, figsize=(12, sum(heights)), squeeze=False, height_ratios=heights, layout="constrained"
    )
    panels = [panel for row in axes for panel in row]
    for at, (name, suite) in enumerate(suites.items()):
        _panel(panels[at], name, suite)
        panels[at].set_ylim(most[at // COLUMNS] - 0.4, -0.6)  # bars of one height
    for panel in panels[len(suites) :]:
        panel.set_visible(False)
    figure.savefig(path, dpi=85)


def _panel(panel: Any, name: str, suite: dict[str, Any]) -> None:
    contestants = suite["contestants"]
    for at, one in enumerate(contestants):
        limit = one["name"].startswith("limit")
        colour = _OURS if at == 0 else "white" if limit else _OTHERS
        panel.barh(at, one["median"], color=colour, edgecolor=_INK if limit else colour, height=0.68)
        panel.hlines(at, min(one["values"]), max(one["values"]), color=_INK, linewidth=1)
        panel.text(max(one["values"]), at, f"  {_short(one['median'])}", va="center", fontsize=7.5, color=_INK)
    names = [one["name"].partition(":")[0] for one in contestants]
    panel.set_yticks(range(len(contestants)), names, fontsize=7.5)
    panel.margins(x=0.2)
    panel.set_title(f"{name}, {_unit(suite)}", fontsize=9, loc="left", fontweight="bold", color=_INK)
    panel.tick_params(axis="x", labelsize=7, colors=_INK)
    panel.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)


if __name__ == "__main__":
    main()
