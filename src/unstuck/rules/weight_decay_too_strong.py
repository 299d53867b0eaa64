"""weight-decay-too-strong: the pull to zero outweighs what the loss asks for."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.options import drop_weight_decay
from unstuck.rules.rule import Rule, Suspicion

OUTWEIGHS = 0.5
"""Part of the first step that is decay / part that is the loss's gradient: usual settings have 1e-4 to 1e-2 (measured:
AdamW with 0.01 has 7e-4)."""

FADING = 0.02
"""lr·decay a step of a decoupled decay: weights lose half of themselves in 35 steps. Usual are 1e-6 to 1e-3."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Decay is half of the first step or more, or takes a fiftieth of the weights each step."""
    gradients, problem = evidence.gradients, evidence.problem
    assert gradients is not None and problem is not None
    recipe = problem.optimizer
    if recipe is None:
        return None
    decay = max(float(hyper.get("weight_decay") or 0.0) for hyper, _ in recipe.groups)
    rate = recipe.lr * decay
    if decay <= 0 or (gradients.decay < OUTWEIGHS and rate < FADING):
        return None
    return Suspicion(
        cause="weight-decay-too-strong",
        strength=0.95 if gradients.shrunk < 0.5 or gradients.decay > 2 * OUTWEIGHS else 0.75,
        where=recipe.site.rsplit("/", 1)[-1],
        summary=f"Weight decay of {decay:g} makes {gradients.decay:.2g} times the step that the loss asks for: the "
        f"weights end at {gradients.shrunk:.2g} of their first size.",
        evidence=(
            Figure("decay's part of the first step / the loss's part", gradients.decay),
            Figure("norm of the weights at the end / at the start", gradients.shrunk),
            Figure("learning rate × decay", rate, unit="a step"),
        ),
        remedies=(drop_weight_decay(problem),),
    )


RULE = Rule(
    cause="weight-decay-too-strong",
    lesson="Weight decay adds a pull to zero, decay times the weight, to every step. Where that is larger than the "
    "loss's gradient, the weights fade and the network predicts a constant.",
    told_by="On the first step decay moves the weights half as far as the loss does, or further.",
    cures="No decay, or one of 1e-4 to 1e-2.",
    needs=("gradients",),
    judge=judge,
)
