"""A few curves as text for a terminal, and as SVG that fits light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

_BAR = 32
_WIDE, _HIGH = 560, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 20, 48, 52

_STYLE = """
.bf-plot text{font:12px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
.bf-plot .bf-title{font-size:15px;font-weight:600}
.bf-plot .bf-mid{text-anchor:middle}.bf-plot .bf-end{text-anchor:end}
.bf-plot path{fill:none;stroke-width:1.5}.bf-plot .bf-ideal{stroke-dasharray:6 4}
.bf-plot .bf-law{stroke-width:2}.bf-plot .bf-measured{stroke-width:1}
"""
_THEME = (
    ".bf-plot .bf-ground{{fill:{ground}}}.bf-plot text{{fill:{text}}}"
    ".bf-plot .bf-axis,.bf-plot .bf-ideal{{stroke:{line}}}.bf-plot .bf-law{{stroke:{law}}}"
    ".bf-plot .bf-measured{{stroke:{measured}}}.bf-plot circle{{fill:{measured}}}"
)
_LIGHT = {"ground": "#ffffff", "text": "#1f2328", "line": "#818b98", "law": "#2b7bb0", "measured": "#c24e00"}
_DARK = {"ground": "#0d1117", "text": "#e6edf3", "line": "#6e7681", "law": "#63b8f0", "measured": "#ff8a3d"}


class Curve(NamedTuple):
    """Points of one kind."""

    name: str
    points: Sequence[tuple[float, float]]
    kind: str
    """``"ideal"``, ``"law"`` or ``"measured"``, whose points are marked."""


def bars(values: Sequence[tuple[float, float]]) -> list[str]:
    """Return a bar for each value, with a mark where its ideal is."""
    most = max(max(pair) for pair in values)
    drawn = []
    for value, ideal in values:
        length, mark = round(value / most * _BAR), round(ideal / most * _BAR)
        line = list(f"{'#' * length:<{_BAR + 1}}")
        line[mark] = "|"
        drawn.append("".join(line).rstrip())
    return drawn


class _Scales:
    """Turns values into places on the page."""

    def __init__(self, curves: Sequence[Curve]) -> None:
        points = [point for curve in curves for point in curve.points]
        self.right = max(2.0, *(x for x, _ in points))
        self.top = max(2.0, *(y for _, y in points)) * 1.05

    def x(self, value: float) -> float:
        return _LEFT + value / self.right * (_WIDE - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HIGH - _BOTTOM - value / self.top * (_HIGH - _TOP - _BOTTOM)


def svg(curves: Sequence[Curve], title: str, cores: int) -> str:
    """Draw speed-up by workers, with a line where there are no more cores."""
    scales = _Scales(curves)
    size = f'width="{_WIDE}" height="{_HIGH}" viewBox="0 0 {_WIDE} {_HIGH}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="bf-plot" role="img" {size}>',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}{_THEME.format(**_LIGHT)}",
            f"@media (prefers-color-scheme:dark){{{_THEME.format(**_DARK)}}}</style>",
            f'<rect class="bf-ground" width="{_WIDE}" height="{_HIGH}" rx="8"/>',
            f'<text class="bf-title" x="{_LEFT}" y="28">{escape(title)}</text>',
            *_axes(scales),
            *_cores(scales, cores),
            *(line for curve in curves for line in _curve(scales, curve)),
            *_legend(curves),
            "</svg>",
            "",
        ]
    )


def _axes(scales: _Scales) -> Iterator[str]:
    left, bottom = scales.x(0), scales.y(0)
    yield f'<path class="bf-axis" d="M{left:.0f} {_TOP}V{bottom:.0f}H{_WIDE - _RIGHT}"/>'
    for value in _ticks(scales.right):
        yield f'<text class="bf-mid" x="{scales.x(value):.0f}" y="{bottom + 18:.0f}">{value}</text>'
    for value in _ticks(scales.top):
        yield f'<text class="bf-end" x="{left - 8:.0f}" y="{scales.y(value) + 4:.0f}">{value}</text>'
    middle = (left + _WIDE - _RIGHT) / 2
    yield f'<text class="bf-mid" x="{middle:.0f}" y="{bottom + 38:.0f}">workers</text>'


def _ticks(most: float) -> list[int]:
    """Return whole numbers up to the largest value, eight at most."""
    step = 1
    while most / step > 8:
        step *= 2
    return list(range(0, int(most) + 1, step))


def _cores(scales: _Scales, cores: int) -> Iterator[str]:
    if cores < scales.right:
        x = scales.x(cores)
        yield f'<path class="bf-axis" stroke-dasharray="2 3" d="M{x:.0f} {_TOP}V{scales.y(0):.0f}"/>'
        yield f'<text x="{x + 6:.0f}" y="{scales.y(0) - 8:.0f}">{cores} cores</text>'


def _curve(scales: _Scales, curve: Curve) -> Iterator[str]:
    places = [(scales.x(x), scales.y(y)) for x, y in curve.points]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    yield f'<path class="bf-{curve.kind}" d="M{path}"/>'
    if curve.kind == "measured":
        for (x, y), (workers, value) in zip(places, curve.points, strict=True):
            told = f"{workers:g} workers: {value:.2f} times as fast"
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>{told}</title></circle>'


def _legend(curves: Sequence[Curve]) -> Iterator[str]:
    for at, curve in enumerate(curves):
        y = _TOP + 10 + 20 * at
        yield f'<path class="bf-{curve.kind}" d="M{_LEFT + 16} {y}h28"/>'
        if curve.kind == "measured":
            yield f'<circle cx="{_LEFT + 30}" cy="{y}" r="4.5"/>'
        yield f'<text x="{_LEFT + 52}" y="{y + 4}">{escape(curve.name)}</text>'
