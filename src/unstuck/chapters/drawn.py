"""Curves and bars of a chapter's charts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unstuck.race.trials import Level
from unstuck.records import Curve


def lines(name: str, x: Sequence[float], y: Sequence[Level], most: float = math.inf) -> Curve:
    """A line with a band of two standard errors; what is not finite, or above `most`, is left out."""
    known = [(at, found) for at, found in zip(x, y, strict=True) if math.isfinite(found.mean) and found.mean <= most]
    banded = any(found.error for _, found in known)
    return Curve(
        name,
        tuple(at for at, _ in known),
        tuple(found.mean for _, found in known),
        tuple(found.mean - 2 * found.error for _, found in known) if banded else (),
        tuple(found.mean + 2 * found.error for _, found in known) if banded else (),
    )


def heights(bars: Sequence[tuple[str, float]]) -> tuple[Curve, ...]:
    """A bar for each name."""
    return tuple(Curve(name, (0.0,), (value if math.isfinite(value) else None,)) for name, value in bars)
