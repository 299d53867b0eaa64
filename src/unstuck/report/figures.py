"""A Chart as a plotly figure: a plain dictionary of data and layout that reads on a light and a dark page.

In a chart of bars, curves of a single value are lying bars named after the curve (a layer); longer curves stand in
groups over x. Curves and reference levels carry their names at the right edge, so that no legend is needed.
"""

from __future__ import annotations

from itertools import cycle
from typing import Any

from unstuck.records import Chart, Curve, Figure
from unstuck.report import words
from unstuck.report.axes import (
    ABOVE,
    DASHES,
    PALETTE,
    Label,
    Scale,
    arrows,
    beside,
    canvas,
    ending,
    points,
    room,
    safe,
    scale,
)
from unstuck.report.contours import contours, heights

GREY = "#868c96"
SCALE = [[0, "#c8553d"], [0.5, "#d9b45b"], [1, "#2f9e6e"]]
HEIGHT, BAR, BESIDE = 240, 28, 150
LETTERS = 20
FEW = 8


def figure(chart: Chart) -> dict[str, Any]:
    """The figure's data and layout: finite numbers only, and no markup from the report's own strings."""
    if chart.surface is not None:
        return contours(chart, chart.surface)
    if not any(words.finite(value) is not None for curve in chart.curves for value in curve.y):
        return _nothing()
    if chart.heat:
        return _cells(chart)
    lying = chart.bars and all(len(curve.y) == 1 for curve in chart.curves)
    return _lying_bars(chart) if lying else _over_x(chart)


def describe(chart: Chart) -> str:
    """The chart in words, for those who do not see it."""
    curves = "; ".join([*heights(chart), *map(_told, chart.curves)]) or "nothing to draw"
    levels = "".join(f"; reference: {level.name} {words.amount(level)}" for level in chart.levels)
    return words.clean(f"{chart.title}, {chart.y} by {chart.x}: {curves}{levels}.")


def _told(curve: Curve) -> str:
    known = [value for value in map(words.finite, curve.y) if value is not None]
    if len(known) < 2:
        return f"{curve.name} {words.number(known[0] if known else None)}"
    first, last, low, high = map(words.number, (known[0], known[-1], min(known), max(known)))
    return f"{curve.name} from {first} to {last}, lowest {low}, highest {high}"


def _nothing() -> dict[str, Any]:
    said = {"text": "no finite value was measured", "showarrow": False, "xref": "paper", "yref": "paper"}
    hidden = {"visible": False, "fixedrange": True}
    return {"data": [], "layout": canvas(BAR, right=16) | {"annotations": [said], "xaxis": hidden, "yaxis": hidden}}


def _over_x(chart: Chart) -> dict[str, Any]:
    """Lines, or groups of standing bars, over x."""
    axis = scale(_heights(chart), chart.log_y, from_zero=chart.bars)
    styles = [(curve, colour, dash) for curve, colour, dash in zip(chart.curves, cycle(PALETTE), cycle(DASHES))]
    labels = [Label(_level(level), level.value) for level in chart.levels]
    if len(chart.curves) > 1:
        labels += [Label(curve.name, _end(curve), colour) for curve, colour, _ in styles]
    height = max(HEIGHT, room(labels, LETTERS))
    draw = _standing_bars if chart.bars else _dots if chart.dots else _line
    layout = canvas(height, right=BESIDE if labels else 16)
    layout["xaxis"] = _along(chart)
    layout["yaxis"] = axis.axis(chart.y)
    layout["shapes"] = [_rule("y", axis, level) for level in chart.levels if axis.place(level.value) is not None]
    layout["annotations"] = beside(labels, axis, height, LETTERS) + arrows(chart)
    bands = [band for curve, colour, _ in styles for band in _band(curve, colour, axis)]
    return {"data": bands + [draw(*style) for style in styles], "layout": layout}


def _along(chart: Chart) -> dict[str, Any]:
    """The axis of x. Where few values stand on a logarithmic one, they are its ticks: it may hold no power of ten."""
    plain = {"title": {"text": safe(chart.x)}, "showgrid": False, "zeroline": False, "fixedrange": True}
    if not chart.log_x:
        return plain
    known = (words.finite(x) for curve in chart.curves for x in curve.x)
    places = sorted({x for x in known if x is not None and x > 0})
    if len(places) <= FEW:
        return plain | {"type": "log", "tickvals": places, "ticktext": [words.number(x) for x in places]}
    return plain | {"type": "log", "exponentformat": "power", "dtick": 1 if places[-1] / 100 > places[0] else "D2"}


def _line(curve: Curve, colour: str, dash: str) -> dict[str, Any]:
    style = {"line": {"color": colour, "dash": dash, "width": 2.2}, "marker": {"color": colour, "size": 7}}
    return {"type": "scatter", "mode": "lines" if len(curve.y) > 1 else "markers", **points(curve), **style}


def _dots(curve: Curve, colour: str, _dash: str) -> dict[str, Any]:
    marker = {"color": colour, "size": 8, "opacity": 0.7}
    return {"type": "scatter", "mode": "markers", "marker": marker, **points(curve)}


def _standing_bars(curve: Curve, colour: str, _dash: str) -> dict[str, Any]:
    return {"type": "bar", "marker": {"color": colour}, **points(curve)}


def _band(curve: Curve, colour: str, axis: Scale) -> list[dict[str, Any]]:
    """The interval as one filled outline: along the upper bounds, and back along the lower ones."""
    bounds = zip(*([words.finite(v) for v in row] for row in (curve.x, curve.low, curve.high)), strict=False)
    points = [point for point in bounds if None not in point]
    if len(points) < 2:
        return []
    there, back = points, points[::-1]
    heights = [axis.within(height) for height in [p[2] for p in there] + [p[1] for p in back]]
    outline = {"x": [p[0] for p in there + back], "y": heights}
    style = {"fill": "toself", "fillcolor": colour + "2e", "line": {"width": 0}, "hoverinfo": "skip"}
    return [{"type": "scatter", "mode": "lines", **outline, **style}]


def _lying_bars(chart: Chart) -> dict[str, Any]:
    """One bar a curve, the first on top: names of layers are long. What has no length is said in words."""
    axis = scale(_heights(chart), chart.log_y, from_zero=True)
    rows = list(range(len(chart.curves)))
    lengths = [None if axis.place(curve.y[0]) is None else curve.y[0] for curve in chart.curves]
    bars = {"type": "bar", "orientation": "h", "x": lengths, "y": rows, "width": 0.6, "marker": {"color": PALETTE[0]}}
    layout = canvas(BAR * len(rows), right=60, top=ABOVE + 18 * len(chart.levels))
    layout["xaxis"] = axis.axis(chart.y)
    names = [ending(curve.name, 32) for curve in chart.curves]
    layout["yaxis"] = {"tickvals": rows, "ticktext": names, "range": [len(rows) - 0.5, -0.5], "fixedrange": True}
    layout["yaxis"] |= {"showgrid": False, "zeroline": False, "automargin": True, "ticklabelstandoff": 6}
    layout["yaxis"]["title"] = {"text": safe(chart.x), "standoff": 10}
    known = [level for level in chart.levels if axis.place(level.value) is not None]
    layout["shapes"] = [_rule("x", axis, level) for level in known]
    ends = [_bar_end(curve, row, axis) for row, curve in enumerate(chart.curves)]
    layout["annotations"] = ends + [_above(level, row, axis) for row, level in enumerate(known)]
    return {"data": [{**bars, "hoverinfo": "skip"}], "layout": layout}


def _cells(chart: Chart) -> dict[str, Any]:
    """A cell for each x of each curve, the curves from below; numbers stand in the cells."""
    z = [[words.finite(value) for value in curve.y] for curve in chart.curves]
    names = [safe(curve.name) for curve in chart.curves]
    places = ["" if x is None else words.number(float(f"{x:.2g}")) for x in chart.curves[0].x]
    said = [["" if value is None else f"{value:.2f}" for value in row] for row in z]
    cells = {
        "type": "heatmap", "x": places, "y": names, "z": z, "text": said, "texttemplate": "%{text}",
        "colorscale": SCALE, "showscale": False, "hoverinfo": "x+y+z", "xgap": 2, "ygap": 2,
    }  # fmt: skip
    layout = canvas(max(90, 34 * len(names)), right=24)
    layout["hovermode"] = "closest"
    layout["xaxis"] = {"title": {"text": safe(chart.x)}, "type": "category", "showgrid": False, "fixedrange": True}
    layout["xaxis"] |= {"tickangle": 0, "tickfont": {"size": 11}}
    layout["yaxis"] = {"title": {"text": safe(chart.y)}, "type": "category", "showgrid": False, "fixedrange": True}
    return {"data": [cells], "layout": layout}


def _bar_end(curve: Curve, row: int, axis: Scale) -> dict[str, Any]:
    share = max(0.0, axis.share(curve.y[0]), axis.share(0.0))
    said = {"text": words.number(curve.y[0]), "showarrow": False, "font": {"size": 12}}
    return {"xref": "paper", "x": share, "y": row, "xanchor": "left", "xshift": 4, **said}


def _above(level: Figure, row: int, axis: Scale) -> dict[str, Any]:
    said = {"text": safe(_level(level)), "showarrow": False, "font": {"size": 12}}
    side = "left" if axis.share(level.value) < 0.5 else "right"
    return {"xref": "paper", "x": axis.share(level.value), "xanchor": side, "yref": "paper", "y": 1,
            "yanchor": "bottom", "yshift": 18 * row, **said}  # fmt: skip


def _rule(across: str, axis: Scale, level: Figure) -> dict[str, Any]:
    """A dashed line at the level, from edge to edge."""
    along = "x" if across == "y" else "y"
    ends = {f"{across}0": level.value, f"{across}1": level.value, f"{along}0": 0, f"{along}1": 1}
    return {"type": "line", f"{along}ref": "paper", **ends, "line": {"color": GREY, "dash": "dash", "width": 1.4}}


def _heights(chart: Chart) -> list[float | None]:
    rows = [row for curve in chart.curves for row in (curve.y, curve.low, curve.high)]
    return [value for row in rows for value in row] + [level.value for level in chart.levels]


def _end(curve: Curve) -> float | None:
    return next((value for value in reversed(curve.y) if words.finite(value) is not None), None)


def _level(level: Figure) -> str:
    return f"{level.name} {words.amount(level)}"
