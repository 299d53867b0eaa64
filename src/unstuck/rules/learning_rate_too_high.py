"""learning-rate-too-high: a smaller step from the same start learns where the present one diverges or bounces."""

from __future__ import annotations

import math

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.learning_rate import change_learning_rate
from unstuck.rules.rule import Rule, Suspicion

CLEARLY = 0.9
"""A tried rate is better when its loss after the same steps is below this share of the present one's: short trainings
of the same network from two seeds differ by up to a tenth (measured on digits and Fashion-MNIST)."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Intervention: trainings at smaller rates end clearly lower than at the present one."""
    rates = evidence.rates
    assert rates is not None and evidence.problem is not None
    if rates.present <= 0 or rates.best >= rates.present:
        return None
    here, best = rates.at(rates.present), rates.at(rates.best)
    if here <= CLEARLY * best or (math.isfinite(here) and best > CLEARLY * here):
        return None
    diverged = not math.isfinite(here) or here > rates.initial
    site = evidence.problem.optimizer.site if evidence.problem.optimizer else ""
    return Suspicion(
        cause="learning-rate-too-high",
        strength=0.9 if diverged else 0.7,
        where=site.rsplit("/", 1)[-1],
        summary=f"At a learning rate of {rates.present:.3g} the loss "
        + ("rises" if diverged else "stays high")
        + f"; at {rates.best:.2g} the same {rates.steps} steps bring it down.",
        evidence=(
            Figure(f"loss after {rates.steps} steps at {rates.present:.2g}", here, samples=rates.steps),
            Figure(f"loss after {rates.steps} steps at {rates.best:.2g}", best, samples=rates.steps),
            Figure("loss at the start", rates.initial),
        ),
        remedies=tuple(change_learning_rate(evidence.problem, rate) for rate in (rates.best, rates.present / 10)),
    )


RULE = Rule(
    cause="learning-rate-too-high",
    lesson="A step of size lr along the gradient lowers the loss only while lr times the curvature stays below 2. "
    "Beyond that each step overshoots the valley: the loss bounces, jumps or rises although the gradient is not small.",
    told_by="Short trainings from the same start at smaller rates end clearly below the present rate.",
    cures="A smaller learning rate (the figure is filled in), or a warm-up towards it.",
    needs=("rates",),
    judge=judge,
)
