"""clipping-too-tight: the gradient is cut at almost every step, by a large factor."""

from __future__ import annotations

import math

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.clipping import loosen_clipping
from unstuck.rules.rule import Rule, Suspicion

ALWAYS = 0.9
TIGHT = 0.1
"""Median of bound / norm. Language models are trained with a clip at 1.0 that cuts by two or three early on."""

SCALE_FREE = ("Adam", "AdamW", "NAdam", "RAdam", "Adamax", "RMSprop", "Adagrad", "Adadelta", "Lion", "Rprop")
"""A step of these is the same for a gradient times any constant factor: cutting hardly matters to them."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Clipping was active on almost every step and shrank the gradient tenfold or more."""
    loop, problem = evidence.loop, evidence.problem
    active, factor = _cut(evidence)
    if loop.clip is None or loop.clip_before_unscale or active < ALWAYS or factor > TIGHT:
        return None
    bound = loop.clip.bound
    usual = bound / max(factor, 1e-30)
    free = problem is not None and problem.optimizer is not None and problem.optimizer.cls.__name__ in SCALE_FREE
    looser = 10 ** math.ceil(math.log10(usual)) if math.isfinite(usual) and usual > 0 else 1.0
    return Suspicion(
        cause="clipping-too-tight",
        strength=0.4 if free else 0.95,
        where=loop.clip.call,
        summary=f"Clipping at {bound:g} cuts the gradient at {active:.0%} of the steps, to {factor:.2g} of itself.",
        evidence=(
            Figure("share of steps that were clipped", active, samples=loop.steps),
            Figure("gradient norm after clipping / before", factor, samples=loop.steps),
        ),
        remedies=(loosen_clipping(problem, max(looser, 1.0)),) if problem is not None else (),
    )


def _cut(evidence: Evidence) -> tuple[float, float]:
    """Share of steps that were clipped, and what was left of the gradient's norm. Clipping by value does not say; then
    the gradients at the start and at the end do, whichever keeps more."""
    loop, gradients = evidence.loop, evidence.gradients
    if loop.clip is None or loop.clip.kind == "norm" or gradients is None:
        return loop.clip_active, loop.clip_factor
    left = max(gradients.first.left, gradients.last.left)
    return float(left < 1), left


RULE = Rule(
    cause="clipping-too-tight",
    lesson="Clipping is for rare, towering gradients. A bound below the usual norm rescales every step: the length "
    "of the step no longer follows the gradient, and is smaller than the learning rate says.",
    told_by="Clipping was active on at least 90 % of the steps, and left a tenth of the gradient or less.",
    cures="A bound above the usual norm.",
    needs=(),
    judge=judge,
)
