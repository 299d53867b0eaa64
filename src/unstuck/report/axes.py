"""An axis whose range is fixed beforehand, and names set beside it so that none covers another."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from unstuck.records import Chart, Curve
from unstuck.report import words

PALETTE = ("#3b82c4", "#c9731c", "#2f9e6e", "#b0619f", "#c8553d", "#8a7a2f")
DASHES = ("solid", "dash", "dashdot", "longdash", "dot", "longdashdot")
ABOVE, BELOW = 14, 48
LINE = 15
GAP = 5
LARGEST = 1e150
GRID, INK = "rgba(128,128,128,0.22)", "#ff5a3c"


class Scale(NamedTuple):
    """The range of an axis, in the axis' own units (powers of ten on a logarithmic one)."""

    low: float
    high: float
    log: bool

    def place(self, value: float | None) -> float | None:
        """Where the value stands on the axis; nothing for what the axis cannot show."""
        value = words.finite(value)
        if value is None or (self.log and value <= 0):
            return None
        return math.log10(value) if self.log else max(-LARGEST, min(LARGEST, value))

    def share(self, value: float | None) -> float:
        """How far up the axis the value stands, 0 to 1; what cannot be shown stands at 0."""
        place = self.place(value)
        return 0.0 if place is None else (place - self.low) / (self.high - self.low)

    def within(self, value: float) -> float:
        """The value; on a logarithmic axis its lower end, where the value lies below what the axis can show."""
        return max(value, 10.0**self.low) if self.log else value

    def axis(self, title: str) -> dict[str, Any]:
        """The axis in plotly's terms."""
        span = self.high - self.low
        ticks = {"type": "log", "dtick": "D2" if span < 2 else max(1, round(span / 5))} if self.log else {}
        shown = {"range": [self.low, self.high], "gridcolor": GRID, "zeroline": False, "fixedrange": True}
        shown["automargin"] = True
        return {"title": {"text": safe(title), "standoff": 8}, "exponentformat": "power", **shown, **ticks}


class Label(NamedTuple):
    """A name to stand beside the axis at a value, with a mark in the colour of the curve it belongs to."""

    text: str
    value: float | None
    colour: str = ""


def scale(values: Iterable[float | None], log: bool, from_zero: bool = False) -> Scale:
    """The range that shows all values with some air around them; bars start from zero where there is one."""
    free = Scale(0.0, 1.0, log)
    places = [place for place in map(free.place, values) if place is not None]
    places += [0.0] if from_zero and not log else []
    low, high = min(places, default=0.0), max(places, default=1.0)
    air = 0.06 * (high - low) or max(0.1, 0.1 * abs(high))
    if log:
        return Scale(low - max(air, 0.3), high + max(air, 0.1), log)
    return Scale(low if from_zero and low == 0 else low - air, high + air, log)


def beside(labels: Sequence[Label], axis: Scale, height: float, width: int) -> list[dict[str, Any]]:
    """The labels as annotations at the right edge, moved up or down where they would overlap."""
    ordered = sorted(labels, key=lambda label: axis.share(label.value))
    texts = [wrapped(label.text, width) for label in ordered]
    wanted = [axis.share(label.value) * height for label in ordered]
    moved = _apart(wanted, [len(text) * LINE + GAP for text in texts], height)
    return [
        {
            "text": _mark(label.colour) + "<br>".join(text), "align": "left", "showarrow": False, "font": {"size": 12},
            "xref": "paper", "x": 1, "xanchor": "left", "xshift": 8,
            "yref": "paper", "y": 0, "yanchor": "middle", "yshift": at,
        }
        for label, text, at in zip(ordered, texts, moved, strict=True)
    ]  # fmt: skip


def room(labels: Sequence[Label], width: int) -> int:
    """The height that the labels need when they stand one above the other."""
    return sum(len(wrapped(label.text, width)) * LINE + GAP for label in labels)


def wrapped(text: str, width: int, lines: int = 3) -> list[str]:
    """The text in a few safe lines."""
    return [safe(line) for line in textwrap.wrap(text, width, max_lines=lines, placeholder="…")] or [""]


def ending(text: str, width: int) -> str:
    """The text in one safe line, cut in front: the end of a layer's name is what tells it from the others."""
    return safe(text if len(text) <= width else "…" + text[1 - width :])


def safe(text: str) -> str:
    """The text as plotly shall show it: plotly reads some markup, and a layer's name is none."""
    return html.escape(words.clean(text), quote=False)


def canvas(height: int, right: int, top: int = ABOVE) -> dict[str, Any]:
    """The layout of a figure whose drawing is so high, with room for names at its right edge."""
    return {
        "height": height + top + BELOW,
        "margin": {"l": 64, "r": right, "t": top, "b": BELOW},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13},
        "showlegend": False,
        "hovermode": "x unified",
        "bargap": 0.3,
    }


def points(curve: Curve) -> dict[str, Any]:
    """The curve's finite points, with breaks where one is not."""
    x, y = ([words.finite(value) for value in row] for row in (curve.x, curve.y))
    return {"x": x, "y": y, "name": safe(curve.name)}


def arrows(chart: Chart) -> list[dict[str, Any]]:
    """The chart's arrows; one with a name carries it at its tip, on a pale ground that any surface can lie under."""
    ground = {"bgcolor": "rgba(255,255,255,0.8)", "font": {"size": 12, "color": "#1c2330"}, "borderpad": 2}
    return [
        {
            "x": a.x + a.dx, "y": a.y + a.dy, "xref": "x", "yref": "y",
            "ax": a.x, "ay": a.y, "axref": "x", "ayref": "y",
            "text": "", "showarrow": True, "arrowhead": 2, "arrowsize": 0.8, "arrowwidth": 1.8, "arrowcolor": INK,
        }
        for a in chart.arrows
    ] + [
        {"x": a.x + a.dx, "y": a.y + a.dy, "text": safe(a.name), "showarrow": False, "xanchor": "left", "xshift": 6}
        | ground
        for a in chart.arrows if a.name
    ]  # fmt: skip


def _apart(wanted: Sequence[float], heights: Sequence[float], top: float) -> list[float]:
    """Middles as near to the wanted ones as upward, then downward pushing leaves them."""
    middles = list(wanted)
    for i in range(1, len(middles)):
        middles[i] = max(middles[i], middles[i - 1] + (heights[i - 1] + heights[i]) / 2)
    ceiling = top + LINE
    for i in reversed(range(len(middles))):
        middles[i] = min(middles[i], ceiling - heights[i] / 2)
        ceiling = middles[i] - heights[i] / 2
    return [round(middle, 1) for middle in middles]


def _mark(colour: str) -> str:
    return f'<span style="color:{colour}">■</span> ' if colour else ""
