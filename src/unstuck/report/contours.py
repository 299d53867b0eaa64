"""A surface seen from above: coloured heights with contour lines, and the paths that cross it."""

from __future__ import annotations

import math
from itertools import cycle
from typing import Any

from unstuck.records import Chart, Curve, Surface
from unstuck.report import words
from unstuck.report.axes import arrows, canvas, points, safe

DEPTHS = [[0, "#1f3350"], [0.25, "#3f6690"], [0.5, "#86a9c4"], [0.75, "#d3dbd8"], [1, "#f6efe0"]]
PATHS = ("#ff8c1a", "#d3218f", "#22b573", "#e23b2e", "#7a3ff2", "#111111")
"""Dark where it is low; paths in colours that stand out from dark blue and from cream alike."""
HEIGHT, BESIDE, LEGEND = 420, 96, 30
LINES = 18
DECADES = 8
"""Below the highest, of a logarithmic surface: what lies deeper (a minimum at 0) takes the darkest colour."""
ALIKE = 3.0
"""Axes whose spans differ by less than this get one scale: right angles stay right."""


def contours(chart: Chart, surface: Surface) -> dict[str, Any]:
    """The figure's data and layout. What the surface is not finite at is left blank."""
    paths = [trace for curve, colour in zip(chart.curves, cycle(PATHS)) for trace in _path(curve, colour)]
    layout = canvas(HEIGHT, right=BESIDE, top=LEGEND)
    layout |= {"hovermode": "closest", "showlegend": bool(chart.curves)}
    layout["legend"] = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"}
    spans = [max(axis) - min(axis) for axis in (surface.x, surface.y)]
    plain = {"showgrid": False, "zeroline": False, "fixedrange": True, "constrain": "domain"}
    layout["xaxis"] = {**plain, "title": {"text": safe(chart.x)}, "range": _ends(surface.x)}
    layout["yaxis"] = {**plain, "title": {"text": safe(chart.y)}, "range": _ends(surface.y)}
    if max(spans) < ALIKE * min(spans):
        layout["yaxis"] |= {"scaleanchor": "x", "scaleratio": 1}
    layout["annotations"] = arrows(chart)
    return {"data": [_heights(surface), *paths], "layout": layout}


def heights(chart: Chart) -> list[str]:
    """The surface in words; nothing where the chart has none."""
    if chart.surface is None:
        return []
    known = _known(chart.surface)
    low, high = (words.number(end(known)) if known else "unknown" for end in (min, max))
    return [f"{chart.surface.name} over the plane, lowest {low}, highest {high}"]


def _known(surface: Surface) -> list[float]:
    return [value for row in surface.z for value in map(words.finite, row) if value is not None]


def _heights(surface: Surface) -> dict[str, Any]:
    """The contour trace; on a logarithmic surface colours go by powers of ten, and the bar says so."""
    z = [[_height(value, surface.log) for value in row] for row in surface.z]
    known = [value for row in z for value in row if value is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    low = max(low, high - DECADES) if surface.log else low
    z = [[value if value is None else max(value, low) for value in row] for row in z]
    bar: dict[str, Any] = {"title": {"text": safe(surface.name), "side": "right"}, "thickness": 12, "outlinewidth": 0}
    if surface.log:
        powers = list(range(math.ceil(low), math.floor(high) + 1, max(1, round((high - low) / 6))))
        bar |= {"tickvals": powers, "ticktext": [f"10<sup>{k}</sup>" for k in powers]} if len(powers) > 1 else {
            "tickvals": [low, high], "ticktext": [words.number(10**low), words.number(10**high)]}  # fmt: skip
    else:
        ticks = _round_values(low, high)
        bar |= {"tickvals": ticks, "ticktext": [words.number(value) for value in ticks]}
    step = (high - low) / LINES or 1.0
    return {
        "type": "contour", "x": list(surface.x), "y": list(surface.y), "z": z, "colorscale": DEPTHS, "colorbar": bar,
        "zmin": low, "zmax": high, "name": "", "hoverinfo": "x+y+z", "showlegend": False,
        "contours": {"coloring": "heatmap", "start": low + step / 2, "end": high, "size": step},
        "line": {"width": 0.6, "color": "rgba(255,255,255,0.55)"},
    }  # fmt: skip


def _round_values(low: float, high: float) -> list[float]:
    """Some four to nine multiples of 1, 2 or 5 times a power of ten, from `low` to `high`."""
    if not high > low:
        return [low]
    ten = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(ten * k for k in (5, 2, 1) if (high - low) / (ten * k) >= 4)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _height(value: float | None, log: bool) -> float | None:
    value = words.finite(value)
    if not log or value is None:
        return value
    return math.log10(max(value, 1e-300)) if value >= 0 else None


def _path(curve: Curve, colour: str) -> list[dict[str, Any]]:
    """The way with a pale edge under it, its first point open and its last one full."""
    line = {"type": "scatter", "mode": "lines", **points(curve), "hoverinfo": "name"}
    edge = {**line, "line": {"color": "rgba(255,255,255,0.7)", "width": 4.5}, "showlegend": False, "hoverinfo": "skip"}
    own = {**line, "line": {"color": colour, "width": 2.4}}
    ends = [(x, y) for x, y in zip(own["x"], own["y"], strict=True) if x is not None and y is not None]
    if not ends:
        return []
    marks = {"color": ["#ffffff", colour], "size": [8, 10], "line": {"color": colour, "width": 2}}
    tips = {"x": [ends[0][0], ends[-1][0]], "y": [ends[0][1], ends[-1][1]], "marker": marks}
    return [edge, own, {"type": "scatter", "mode": "markers", **tips, "showlegend": False, "hoverinfo": "skip"}]


def _ends(axis: tuple[float, ...]) -> list[float]:
    return [min(axis), max(axis)]
