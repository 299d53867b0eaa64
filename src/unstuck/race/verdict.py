"""From final scores of control, placebo and a remedied lane to a verdict with an interval.

The difference remedied − control is taken seed by seed (same start, same batches). Its interval is Student's, with the
variance pooled over the lane's and the placebo's differences, at 95 %:

    d̄ ± t(df) · s_pooled / √S,    df = degrees of freedom of the pool

and for accuracies McNemar's sampling error of the scored samples added in quadrature. An effect counts when its
interval excludes zero and it is larger than `MATERIAL` and than the placebo's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import stdtrit

from unstuck.records import Outcome, Verdict

Array = np.ndarray[Any, np.dtype[np.float64]]

MATERIAL = 0.02
"""Smallest difference in accuracy or R² worth a user's while: two samples in a hundred."""

LARGE = 0.1
"""An effect of this size counts also where every remedied seed ends above every control seed, however the control
scatters: with three seeds each that is the most extreme of 20 orders (Mann-Whitney, p = 0.05)."""

CURED_SHARE = 0.7
"""A remedy cures when it closes at least this share of the gap between the control and the best that was reached."""


def judge(
    metric: str,
    control: Sequence[float],
    remedied: Sequence[float],
    placebo: Sequence[float],
    best: float,
    steps: int,
    samples: int,
) -> Verdict:
    """The verdict of one lane; sequences hold the final score of each seed, `best` the highest level reachable."""
    seeds = min(len(control), len(remedied))
    if not seeds:
        return Verdict()
    ours = np.subtract(remedied[:seeds], control[:seeds])
    chance = np.subtract(placebo[: len(control)], control[: len(placebo)])
    effect, half = float(ours.mean()), _half_width(ours, chance, metric, control, remedied, samples)
    floor = max(MATERIAL, abs(float(chance.mean())) if len(chance) else 0.0)
    apart = seeds >= 3 and effect > LARGE and min(remedied[:seeds]) > max(*control[:seeds], *placebo[:seeds])
    outcome = _outcome(effect, half, floor, float(np.mean(control[:seeds])), best, apart)
    return Verdict(
        outcome,
        metric,
        float(np.mean(control[:seeds])),
        float(np.mean(remedied[:seeds])),
        (effect - half, effect + half),
        steps,
        seeds,
        control_error=_standard_error(control[:seeds]),
        remedied_error=_standard_error(remedied[:seeds]),
    )


def _standard_error(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def _half_width(
    ours: Array, chance: Array, metric: str, control: Sequence[float], remedied: Sequence[float], samples: int
) -> float:
    pools = [d for d in (ours, chance) if len(d) > 1]
    freedom = sum(len(d) - 1 for d in pools)
    spread = 0.0
    if freedom:
        variance = sum(float(((d - d.mean()) ** 2).sum()) for d in pools) / freedom
        spread = float(stdtrit(freedom, 0.975)) * math.sqrt(variance / len(ours))
    sampling = 0.0
    if metric.endswith("accuracy") and samples:
        # Both lanes are scored on the same samples: (b + c) / n² is McNemar's variance, and b + c ≥ n·|p − q|; what
        # the lanes disagree on beyond that shows in the spread over seeds.
        sampling = 1.96 * math.sqrt(min(abs(float(np.mean(control) - np.mean(remedied))), 1.0) / samples)
    single = 0.0 if freedom else MATERIAL
    return math.hypot(spread, sampling) + single


def _outcome(effect: float, half: float, floor: float, control: float, best: float, apart: bool) -> Outcome:
    if effect > floor and (effect - half > 0 or apart):
        return "cured" if effect >= CURED_SHARE * max(best - control, floor) else "helped"
    if effect + half < 0 and -effect > floor:
        return "worse"
    if effect + half <= 2 * MATERIAL:
        return "no-effect"
    return "undecided"
