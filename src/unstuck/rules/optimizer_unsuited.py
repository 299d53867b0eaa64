"""optimizer-unsuited: no one rate serves gradients of such different scales; an adaptive method does."""

from __future__ import annotations

import torch

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.learning_rate import change_optimizer
from unstuck.remedies.remedy import Remedy
from unstuck.rules import (
    bad_initialization_scale,
    clipping_before_unscale,
    clipping_too_tight,
    exploding_gradients,
    momentum_misconfigured,
    saddle_point,
    saturated_activations,
    schedule_decays_too_early,
    symmetric_initialization,
    unscaled_inputs,
    vanishing_gradients,
    weight_decay_too_strong,
)
from unstuck.rules.rule import Rule, Suspicion, any_of

CLEARLY, BY_FAR = 1.1, 2.0
"""Adam removes so many times more of the first loss than the best plain rate does, in the same steps. A trial of a
third of them counts half: Adam is quick to begin."""

FAR = 0.4
"""Share learnt (see `Level.learnt`) beyond which plain descent has served, unless Adam is ahead by far: a well-tuned
recurrent network reached 0.43 by it, a transformer 0.16 (measured after 400 steps)."""

APART = 30.0
"""Largest over smallest gradient an entry, over the layers: convolutional and plain networks with a sound start have 3
to 20, transformers and recurrent networks with embeddings 20 to 1000 (measured)."""

SPECIFIC = (clipping_before_unscale, clipping_too_tight, schedule_decays_too_early, vanishing_gradients,
            bad_initialization_scale, symmetric_initialization, momentum_misconfigured, exploding_gradients,
            saturated_activations, unscaled_inputs, weight_decay_too_strong, saddle_point)  # fmt: skip


def judge(evidence: Evidence) -> Suspicion | None:
    """Intervention: Adam ends below plain gradient descent at every rate; and the gradients' scales say why."""
    rates, gradients, problem = evidence.rates, evidence.gradients, evidence.problem
    assert rates is not None and gradients is not None and problem is not None
    if rates.duel is None or problem.optimizer is None or any_of(evidence, SPECIFIC):
        return None
    steps, plain, adam = rates.duel
    rate, early = min(rates.adam, key=lambda pair: pair[1])
    apart = max(gradients.first.spread, gradients.last.spread)
    served = evidence.level is not None and evidence.level.learnt > FAR
    lead = max(_lead(rates.initial, adam, plain), _lead(rates.initial, early, rates.at(rates.best)) / 2)
    if not lead > (BY_FAR if served else CLEARLY) or not apart > APART:
        return None
    return Suspicion(
        cause="optimizer-unsuited",
        strength=0.9,
        where=problem.optimizer.site.rsplit("/", 1)[-1],
        summary=f"Gradients of the layers differ {apart:.2g}-fold in scale: no single rate of "
        f"{problem.optimizer.cls.__name__} does in {steps} steps what Adam does.",
        evidence=(
            Figure("largest / smallest gradient an entry, over layers", apart, samples=len(gradients.first.layers)),
            Figure(f"loss after {steps} steps, best plain rate", plain, samples=steps),
            Figure(f"loss after {steps} steps, best rate of Adam", adam, samples=steps),
        ),
        remedies=_remedies(evidence, rate),
    )


def _lead(initial: float, adam: float, plain: float) -> float:
    return (initial - adam) / max(initial - plain, 1e-12)


def _remedies(evidence: Evidence, rate: float) -> tuple[Remedy, ...]:
    problem = evidence.problem
    assert problem is not None
    wanted = dict.fromkeys((1e-3, rate))
    return tuple(change_optimizer(problem, torch.optim.Adam, lr=lr) for lr in wanted)


RULE = Rule(
    cause="optimizer-unsuited",
    lesson="Gradient descent has one step size for all parameters. In transformers and networks with embeddings the "
    "gradients of the layers differ by orders of magnitude: what suits one lets the other diverge or stand still. Adam "
    "divides each by its own size.",
    told_by="The layers' gradients differ more than thirtyfold, and a short training with Adam ends below those with "
    "plain gradient descent at eleven rates.",
    cures="Adam (or AdamW) with a rate of 1e-3.",
    needs=("rates", "gradients"),
    judge=judge,
)
