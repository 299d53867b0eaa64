"""A ratio of two estimates with its interval (Fieller 1954), for denominators that may be zero for all that is known.

    ratio = quotient(a, b, ((vaa, vab), (vab, vbb)), t=1.96)
    ratio.value, ratio.low, ratio.high

The interval holds every θ for which a − θ·b lies within t standard errors of zero:

    (a − θ b)² ≤ t² (v_aa − 2 θ v_ab + θ² v_bb)

It is exact where a and b are jointly normal, however large their errors; a b that could be zero makes it unbounded, not
wrong (the delta method would give a narrow interval around a meaningless number).
"""

from __future__ import annotations

import math
from typing import NamedTuple

Covariance = tuple[tuple[float, float], tuple[float, float]]


class Ratio(NamedTuple):
    """a / b of two quantities that are not negative, and the ends of its interval, 0 ≤ low ≤ high ≤ inf."""

    value: float
    low: float
    high: float


def quotient(a: float, b: float, covariance: Covariance, t: float) -> Ratio:
    """a / b for quantities known to be ≥ 0, with all θ ≥ 0 that the estimates allow at `t` standard errors.

    `value` is inf where b ≤ 0 < a, nan where neither is positive. [0, inf] where nothing is known.

    >>> quotient(2.0, 1.0, ((0.01, 0.0), (0.0, 0.0)), t=2.0)
    Ratio(value=2.0, low=1.8, high=2.2)
    >>> quotient(2.0, 0.1, ((0.0, 0.0), (0.0, 0.01)), t=2.0).high
    inf
    """
    value = max(a, 0.0) / b if b > 0 else math.inf if a > 0 else math.nan
    if not all(map(math.isfinite, (a, b, t, *covariance[0], *covariance[1]))):
        return Ratio(value, 0.0, math.inf)
    square, cross, rest = (
        b * b - t * t * covariance[1][1],
        a * b - t * t * covariance[0][1],
        a * a - t * t * covariance[0][0],
    )
    # square·θ² − 2 cross·θ + rest ≤ 0
    inside = cross * cross - square * rest
    if inside < 0:  # only for square < 0: every θ satisfies it
        return Ratio(value, 0.0, math.inf)
    root = math.sqrt(inside)
    if square > 0:
        ends = ((cross - root) / square, (cross + root) / square)
        return Ratio(value, max(ends[0], 0.0), max(ends[1], 0.0))
    if square == 0:
        return Ratio(value, max(rest / (2 * cross), 0.0) if cross > 0 else 0.0, math.inf)
    # Outside of the two roots: the upper part where one is negative; where both are positive, θ = 0 belongs to it.
    ends = ((cross + root) / square, (cross - root) / square)
    return Ratio(value, ends[1] if ends[0] <= 0 < ends[1] else 0.0, math.inf)
