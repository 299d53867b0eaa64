"""unscaled-targets: regression targets so large or so small that loss and step are off by orders of magnitude."""

from __future__ import annotations

import math

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.standardize import standardize_targets
from unstuck.rules.rule import Rule, Suspicion

DISTANCES = frozenset({"mse", "l1", "smooth_l1", "huber"})
LARGE = 10.0
"""Outputs start within ±1 under the usual initializations (LeCun et al. 1998, section 4.5, asks for targets there);
ten times that is ten times the steps of an output bias under Adam, and a hundred times the squared error."""
SMALL = 0.05
"""Below this spread the starting outputs' own noise, a few tenths, dwarfs what is to be learnt."""
UNEVEN = 100.0


def judge(evidence: Evidence) -> Suspicion | None:
    """Mean and spread of the targets, column by column, against the unit scale on which networks start."""
    problem, data = evidence.problem, evidence.data
    assert problem is not None and data is not None
    targets, criterion = data.targets, problem.criterion
    if targets is None or criterion.task != "regression" or criterion.kind not in DISTANCES:
        return None
    mean, spread = float(targets.mean.abs().max()), float(targets.std.max())
    varied = targets.std[targets.std > 0]
    ratio = float(varied.max() / varied.min()) if 1 < varied.numel() <= 64 else 1.0
    off = max(max(mean, spread) / LARGE, SMALL / max(spread, 1e-12) if spread > 0 else 0.0, ratio / UNEVEN)
    if off <= 1:
        return None
    return Suspicion(
        cause="unscaled-targets",
        strength=min(0.93, 0.75 + 0.1 * math.log10(off)),
        where=criterion.site.rsplit("/", 1)[-1],
        summary=f"The targets have a mean of {float(targets.mean[targets.mean.abs().argmax()]):.3g} and a standard "
        f"deviation of {spread:.3g}, while outputs start within a few tenths of 0.",
        evidence=(
            Figure("mean of the targets", mean, samples=targets.samples),
            Figure("standard deviation of the targets", spread, samples=targets.samples),
            *([Figure("largest spread of a column over smallest", ratio)] if ratio > 1 else []),
        ),
        remedies=(standardize_targets(problem, targets),),
    )


RULE = Rule(
    cause="unscaled-targets",
    lesson="A network starts with outputs near 0 and moves them by about a learning rate a step. Targets in the "
    "thousands are thousands of steps away, or make squared errors in the millions and gradients to match.",
    told_by="Mean or spread of the targets above 10, or spread below 0.05, and training on standardized targets learns "
    "more, scored on the original scale.",
    cures="Subtract the training targets' mean, divide by their standard deviation, and scale predictions back.",
    needs=("data",),
    judge=judge,
)
