"""unscaled-inputs: input features far from unit scale, or differing by orders of magnitude."""

from __future__ import annotations

import math

from unstuck.evidence import Evidence
from unstuck.probes.data import Entrance
from unstuck.records import Figure
from unstuck.remedies.standardize import standardize_inputs
from unstuck.rules.rule import Rule, Suspicion

LARGE = 10.0
SMALL = 0.1
"""Usual initializations keep the signal's size for inputs of unit variance (LeCun et al. 1998, section 4.3). Pixels in
[0, 1] (rms 0.3 to 0.6) and digits in 0 to 16 (rms 8) trained well in the gallery's healthy scripts."""
UNEVEN = 100.0
"""The Hessian's condition number grows with the square of the ratio of two features' sizes (LeCun et al. 1991)."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Root mean square and peaks per feature where data enters. One-hot inputs and data that a normalization layer
    receives first are left alone."""
    problem, data = evidence.problem, evidence.data
    assert problem is not None and data is not None
    found = [e for e in data.inputs if not e.normalized and not e.binary and e.peak.max() > 0 and e.samples > 1]
    found = sorted((e for e in found if off(e) > 1), key=off, reverse=True)
    if not found:
        return None
    worst = found[0]
    top, ratio = float(worst.rms.max()), unevenness(worst)
    return Suspicion(
        cause="unscaled-inputs",
        strength=min(0.93, 0.7 + 0.12 * math.log10(off(worst))),
        where=worst.where,
        summary=f"What enters {worst.where} "
        + (f"has features that differ in size by a factor of {ratio:.2g}" if ratio > UNEVEN else "is on one scale")
        + f", the largest with a root mean square of {top:.3g}: the first layer is made for about 1.",
        evidence=(
            Figure("root mean square of the largest feature", top, samples=worst.samples),
            Figure("size of large features over small ones", ratio, samples=worst.samples),
            Figure("largest entry", float(worst.peak.max()), samples=worst.samples),
        ),
        remedies=(standardize_inputs(problem, found),),
    )


def off(entrance: Entrance) -> float:
    """How far the features lie from unit scale, in units of what is still usual (above 1: too far)."""
    top = float(entrance.rms.max())
    return max(top / LARGE, SMALL / max(top, 1e-12), unevenness(entrance) / UNEVEN)


def unevenness(entrance: Entrance) -> float:
    """The 90 % quantile of the features' peaks over the 10 % quantile; features that are always 0 do not count."""
    peaks = entrance.peak[entrance.peak > 0]
    if peaks.numel() < 2:
        return 1.0
    return float(peaks.quantile(0.9) / peaks.quantile(0.1))


RULE = Rule(
    cause="unscaled-inputs",
    lesson="The gradient of a first-layer weight is proportional to its input. Inputs in the hundreds saturate or kill "
    "units at once; inputs of different sizes give a Hessian so ill-conditioned that no one step size serves all.",
    told_by="Features with a root mean square above 10 (all below 0.1), or peaks that differ by more than 100, where "
    "data enters the first layer; and the same training on standardized inputs learns more.",
    cures="Subtract each feature's mean, divide by its standard deviation (StandardScaler), or start with BatchNorm.",
    needs=("data",),
    judge=judge,
)
