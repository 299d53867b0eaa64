"""Slices through the loss: charts of the surface from above, with the way the training went on it, and in words.

    found = measure(problem)
    said(found), charts(found.slices)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from unstuck.probes.surface import Slice, Slices
from unstuck.records import Chart, Curve, Surface

DECADES = 100.0
"""Highest loss over the lowest from which colours go by powers of ten: below it contour lines at even heights show the
valley's floor as well as its walls."""

TITLES = {
    "random": "The loss along two random directions",
    "path": "The loss where the training went",
    "curvature": "The loss along gradient and curvature",
}


NAMES = {
    "random": "two random directions",
    "path": "the plane that holds most of the training's way",
    "curvature": "gradient and curvature",
}


def said(found: Slices) -> list[str]:
    """How far the loss varies over each slice, and what could not be had."""
    told = [f"along {NAMES.get(one.name, one.name)} {_span(one)}" for one in found.slices]
    drawn = [f"The loss around where the training was left, over planes: {'; '.join(told)}."] if told else []
    return drawn + [f"No surface along {reason}." for reason in found.missing]


def _span(found: Slice) -> str:
    known = [value for row in found.z for value in row if math.isfinite(value)]
    return f"from {min(known):.3g} to {max(known):.3g}" if known else "nowhere finite"


def charts(slices: Sequence[Slice]) -> tuple[Chart, ...]:
    """A chart for each slice."""
    return tuple(map(_chart, slices))


def _chart(found: Slice) -> Chart:
    rows = tuple(tuple(value if math.isfinite(value) else None for value in row) for row in found.z)
    surface = Surface("loss", found.x, found.y, rows, log=_logarithmic(found))
    path = Curve("the training's path", *zip(*found.path, strict=True)) if len(found.path) > 1 else None
    return Chart(
        TITLES.get(found.name, "The loss over a plane"), found.x_name, found.y_name,
        curves=(path,) if path else (), surface=surface, note=_note(found),
    )  # fmt: skip


def _logarithmic(found: Slice) -> bool:
    known = [value for row in found.z for value in row if math.isfinite(value)]
    return bool(known) and min(known) > 0 and max(known) > DECADES * min(known)


def _note(found: Slice) -> str:
    """How it was had, and how much of the training's way the picture can show."""
    said = f"{found.resolution} × {found.resolution} points, {found.samples} samples"
    if not math.isfinite(found.share):
        return said
    return f"{said}; {100 * found.share:.2g} % of the training's way lies in this plane"
