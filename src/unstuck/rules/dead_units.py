"""dead-units: ReLU-like units that output 0 for every sample, and so receive no gradient."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.probes.activations import Activation
from unstuck.records import Figure
from unstuck.remedies.activation import leaky
from unstuck.remedies.initialization import reinitialize
from unstuck.remedies.learning_rate import change_learning_rate
from unstuck.rules import (
    bad_initialization_scale,
    momentum_misconfigured,
    symmetric_initialization,
    weight_decay_too_strong,
)
from unstuck.rules.rule import Rule, Suspicion, any_of

MANY = 0.4
"""Share of dead units of a layer that is worth a word: sound ReLU networks show up to a third (Lu et al. 2019 count
layers of half-dead units as born dead)."""

SPECIFIC = (bad_initialization_scale, symmetric_initialization, momentum_misconfigured, weight_decay_too_strong)


def judge(evidence: Evidence) -> Suspicion | None:
    """A layer with more than `MANY` dead units at the end of the training."""
    activations, problem = evidence.activations, evidence.problem
    assert activations is not None and problem is not None
    dead = [a for a in activations.last if a.dead > MANY and a.units > 1]
    if not dead:
        return None
    worst = max(dead, key=lambda a: a.dead)
    born = next((a.dead for a in activations.initial if a.key == worst.key), 0.0)
    smaller = [change_learning_rate(problem, problem.optimizer.lr / 10)] if problem.optimizer and born < MANY else []
    return Suspicion(
        cause="dead-units",
        strength=_strength(evidence, worst, born),
        where=worst.where,
        summary=f"{worst.dead:.0%} of the units of {worst.where} output 0 on every sample"
        + (", already at the start" if born > MANY else "")
        + ": no gradient reaches their weights.",
        evidence=(*_figures(worst, born), Figure("layers with many dead units", float(len(dead)))),
        remedies=(
            leaky(problem, tuple(a.key for a in activations.last if a.kind == "relu")),
            reinitialize(problem),
            *smaller,
        ),
    )


def _strength(evidence: Evidence, worst: Activation, born: float) -> float:
    """Units that died on the way were killed by something: a step too large, or signals too small to live on."""
    sure = min(0.95, 0.4 + 0.6 * worst.dead) if born > MANY else 0.3 + 0.35 * worst.dead
    return sure * (0.5 if any_of(evidence, SPECIFIC) else 1.0)


def _figures(worst: Activation, born: float) -> tuple[Figure, ...]:
    return (
        Figure("dead units", worst.dead, samples=worst.samples),
        Figure("dead units at the start", born, samples=worst.samples),
    )


RULE = Rule(
    cause="dead-units",
    lesson="A ReLU whose input is negative on every sample outputs 0 and passes no gradient back, so its weights stay "
    "as they are for ever. Too large a step, or a start with shifted biases, kills units by the layer.",
    told_by="More than 40 % of a layer's units output exactly 0 on every sample seen.",
    cures="A leaky activation, a sound (He) initialization, a smaller learning rate.",
    needs=("activations",),
    judge=judge,
)
