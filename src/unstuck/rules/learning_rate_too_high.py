"""learning-rate-too-high: a smaller step from the same start learns where the present one diverges or bounces."""

from __future__ import annotations

import math

from unstuck.evidence import Evidence
from unstuck.probes.rates import Rates
from unstuck.records import Figure
from unstuck.remedies.learning_rate import change_learning_rate
from unstuck.rules import (
    bad_initialization_scale,
    exploding_gradients,
    momentum_misconfigured,
    saturated_activations,
    symmetric_initialization,
    unscaled_inputs,
    unscaled_targets,
    wrong_loss_sign_or_scale,
)
from unstuck.rules.rule import Rule, Suspicion, any_of

CLEARLY = 0.9
"""A tried rate is better when its loss after the same steps is below this share of the present one's: short trainings
of the same network from two seeds differ by up to a tenth (measured on digits and Fashion-MNIST)."""

LEAP = 0.1
"""Step / weights of the first step. Sound trainings start at 0.002 to 0.05, sick ones at 0.15 to 1.4 (measured)."""

SPECIFIC = (momentum_misconfigured, exploding_gradients, bad_initialization_scale, symmetric_initialization,
            unscaled_inputs, unscaled_targets, wrong_loss_sign_or_scale)  # fmt: skip
"""Causes that a smaller rate heals a little; where one of them has evidence of its own, it is likelier. So are units
that were saturated from the start; those that large steps drove there are a consequence."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Intervention: trainings at smaller rates end clearly lower; or history: the loss came down and rose again."""
    rates = evidence.rates
    assert rates is not None and evidence.problem is not None
    if rates.present <= 0 or evidence.problem.optimizer is None:
        return None
    better = _better(rates)
    if not better and not _rose(evidence):
        return None
    lower = min(rates.suggested[0], rates.present / 3) if better else rates.present / 10
    diverged = better and not rates.at(rates.present) <= rates.initial
    leap = evidence.gradients.first.step if evidence.gradients else float("nan")
    strength = min(0.9, (0.85 if diverged else 0.7 if better else 0.5) + (0.15 if leap > LEAP else 0.0))
    return Suspicion(
        cause="learning-rate-too-high",
        strength=strength * (0.5 if any_of(evidence, SPECIFIC) or _born_saturated(evidence) else 1.0),
        where=evidence.problem.optimizer.site.rsplit("/", 1)[-1],
        summary=_summary(rates, diverged) if better else _late(evidence),
        evidence=(
            *_figures(rates),
            *((Figure("step / weights of the first step", leap),) if leap == leap else ()),
        ),
        remedies=tuple(change_learning_rate(evidence.problem, rate) for rate in _two(lower, rates.present)),
    )


def _born_saturated(evidence: Evidence) -> bool:
    found = saturated_activations.judge(evidence) if evidence.activations is not None else None
    return found is not None and found.strength > saturated_activations.DRIVEN


def _better(rates: Rates) -> bool:
    here, best = rates.at(rates.present), rates.at(rates.best)
    return rates.best < rates.present and math.isfinite(best) and not best > CLEARLY * here


def _rose(evidence: Evidence) -> bool:
    history = evidence.history
    return history is not None and not evidence.loop.schedule and history.lowest > 0 and history.rose


def _two(lower: float, present: float) -> tuple[float, float]:
    """The rate that did best in a short training, and a smaller one: longer trainings bear less."""
    return lower, present / 10 if lower > 0.1 * present else lower / 3


def _summary(rates: Rates, diverged: bool) -> str:
    return (
        f"At a learning rate of {rates.present:.3g} the loss {'rises' if diverged else 'stays high'}; "
        f"at {rates.best:.2g} the same {rates.steps} steps bring it down."
    )


def _late(evidence: Evidence) -> str:
    history, rates = evidence.history, evidence.rates
    assert history is not None and rates is not None
    return (
        f"The loss came down to {history.lowest:.3g} and rose to {history.last:.3g} at a rate of {rates.present:.3g}."
    )


def _figures(rates: Rates) -> tuple[Figure, ...]:
    return (
        Figure(f"loss after {rates.steps} steps at {rates.present:.2g}", rates.at(rates.present), samples=rates.steps),
        Figure(f"loss after {rates.steps} steps at {rates.best:.2g}", rates.at(rates.best), samples=rates.steps),
        Figure("loss at the start", rates.initial),
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
