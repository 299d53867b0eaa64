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
    if loop.clip is None or loop.clip_before_unscale or loop.clip_active < ALWAYS or loop.clip_factor > TIGHT:
        return None
    kind, bound = loop.clip
    usual = bound / max(loop.clip_factor, 1e-30)
    free = problem is not None and problem.optimizer is not None and problem.optimizer.cls.__name__ in SCALE_FREE
    looser = 10 ** math.ceil(math.log10(usual)) if math.isfinite(usual) and usual > 0 else 1.0
    return Suspicion(
        cause="clipping-too-tight",
        strength=0.4 if free else 0.95,
        where=f"clip_grad_{kind}_(…, {bound:g})",
        summary=f"Clipping at {bound:g} cuts the gradient at {loop.clip_active:.0%} of the steps, to "
        f"{loop.clip_factor:.2g} of itself.",
        evidence=(
            Figure("share of steps that were clipped", loop.clip_active, samples=loop.steps),
            Figure("median of bound / gradient norm", loop.clip_factor, samples=loop.steps),
            Figure("usual gradient norm", usual),
        ),
        remedies=(loosen_clipping(problem, max(looser, 1.0)),) if problem is not None else (),
    )


RULE = Rule(
    cause="clipping-too-tight",
    lesson="Clipping is for rare, towering gradients. A bound below the usual norm rescales every step: the length "
    "of the step no longer follows the gradient, and is smaller than the learning rate says.",
    told_by="Clipping was active on at least 90 % of the steps, and left a tenth of the gradient or less.",
    cures="A bound above the usual norm.",
    needs=(),
    judge=judge,
)
