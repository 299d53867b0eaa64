"""The figures that rules on critical points share."""

from __future__ import annotations

from unstuck.curvature.point import Point
from unstuck.evidence import Evidence
from unstuck.records import Figure

SHORT = 0.93
"""Of a reference's score above chance: see `settle.UP_TO`, measured on sound trainings."""

BOUNCING = 2.0
"""A step so many times what the steepest direction allows carries plain descent out of any minimum, and it is too large
whatever the flat directions ask for; trainings at the edge of stability hover a little above 1 (Cohen et al. 2021)."""


def figures(point: Point) -> tuple[Figure, ...]:
    """Gradient with its noise, both ends of the spectrum, the quotient along the most negative direction."""
    least, most = point.ends.least, point.ends.most
    noise = point.noise if point.noise == point.noise else None
    sure = "exact" if not least.failure else f"probability {1 - least.failure:.3g}"
    return (
        Figure("gradient over all recorded data", point.gradient, error=noise, samples=point.samples),
        Figure(f"smallest curvature, at most ({sure})", least.high, samples=point.samples),
        Figure(f"smallest curvature, at least ({sure})", least.low, samples=point.samples),
        Figure(f"largest curvature ({sure})", most.high, samples=point.samples),
    )


def falls_short(evidence: Evidence) -> bool:
    """True if a reference that was fitted to the same data does clearly better on data it was not fitted to."""
    level, references = evidence.level, evidence.references
    if level is None or references is None or not references.informative or references.metric != level.metric:
        return False
    reach, chance = references.fair.held_out, references.chance
    return level.train.value - chance < SHORT * (reach - chance)
