"""adaptive-step-exhausted: AdaGrad's sum of squared gradients has shrunk the step to almost nothing."""

from __future__ import annotations

import torch

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.learning_rate import change_learning_rate, change_optimizer
from unstuck.rules.rule import Rule, Suspicion

SHRUNK = 0.2
"""Step with the accumulated sums / step with none. It falls as 1/√t, so every long AdaGrad training is below this."""

STILL = 5e-3
"""Step / weights at the end. Of two character LSTMs after 600 steps of AdaGrad the sound one (rate 0.1) takes 8e-3, the
stuck one (rate 0.01) 2.6e-3 (measured); it falls on as 1/√t."""


def judge(evidence: Evidence) -> Suspicion | None:
    """An AdaGrad whose step has shrunk several times over, and hardly moves the weights."""
    gradients, problem = evidence.gradients, evidence.problem
    assert gradients is not None and problem is not None
    recipe = problem.optimizer
    if recipe is None or not issubclass(recipe.cls, torch.optim.Adagrad) or not gradients.exhausted < SHRUNK:
        return None
    if not gradients.last.step < STILL or evidence.loop.steps < 20:
        return None
    return Suspicion(
        cause="adaptive-step-exhausted",
        strength=0.95,
        where=recipe.site.rsplit("/", 1)[-1],
        summary=f"AdaGrad's sum of squared gradients has shrunk the step to {gradients.exhausted:.2g} of its first "
        f"size: a step now moves the weights by {gradients.last.step:.1g} of themselves.",
        evidence=(
            Figure("step with the accumulated sums / without", gradients.exhausted),
            Figure("step / weights at the end", gradients.last.step, samples=len(gradients.last.layers)),
            Figure("step / weights at the start", gradients.first.step, samples=len(gradients.first.layers)),
        ),
        remedies=(
            change_optimizer(problem, torch.optim.Adam, lr=1e-3),
            change_learning_rate(problem, recipe.lr * 10),
        ),
    )


RULE = Rule(
    cause="adaptive-step-exhausted",
    lesson="AdaGrad divides by the root of the sum of all squared gradients so far. The sum only grows, so the step "
    "falls at least as 1/√t, whether or not there is still a way to go. RMSProp and Adam forget instead.",
    told_by="The step with AdaGrad's accumulated sums is a small share of what it would be without, and moves the "
    "weights by less than a thousandth.",
    cures="Adam or RMSProp, which average over recent gradients only; a larger rate for AdaGrad.",
    needs=("gradients",),
    judge=judge,
)
