"""learning-rate-too-low: the loss falls, but orders of magnitude slower than a larger stable step would make it."""

from __future__ import annotations

import math

from unstuck.evidence import Evidence
from unstuck.probes.rates import Rates
from unstuck.records import Figure
from unstuck.remedies.learning_rate import change_learning_rate
from unstuck.rules import (
    adaptive_step_exhausted,
    bad_initialization_scale,
    clipping_before_unscale,
    clipping_too_tight,
    loss_mse_on_classification,
    momentum_misconfigured,
    saddle_point,
    schedule_decays_too_early,
    symmetric_initialization,
    vanishing_gradients,
    wrong_loss_sign_or_scale,
)
from unstuck.rules.rule import Rule, Suspicion, any_of

TIMES = 10.0
"""The best rate of a short training over the present one. Short trainings like larger rates than long ones do: sound
scripts were seen up to 10 away after 8 steps, 3 after 60."""

STILL = 3e-4
"""Step / weights at the end. Sound trainings take 2e-3 to 6e-3 while they learn, sick ones 1e-5 to 1e-4 (measured)."""

DROPS = 4.0
"""The short training at the best rate brings the loss down by so much more than the present one's."""

SPECIFIC = (clipping_before_unscale, clipping_too_tight, schedule_decays_too_early, adaptive_step_exhausted,
            vanishing_gradients, bad_initialization_scale, symmetric_initialization,
            momentum_misconfigured, saddle_point)  # fmt: skip
"""What makes a step small by itself: a larger rate would heal it too, and is not the cause."""

LOSSES = (loss_mse_on_classification, wrong_loss_sign_or_scale)
"""Losses that send little back: a larger rate makes up for it. Which of the two it is the race says; where both help,
the loss is the cause."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Intervention: rates far above the present one bring the loss down many times further in the same steps."""
    rates, gradients = evidence.rates, evidence.gradients
    assert rates is not None and evidence.problem is not None and gradients is not None
    if rates.present <= 0 or rates.best < 0.99 * TIMES * rates.present or evidence.problem.optimizer is None:
        return None
    if not _drops(rates) or not gradients.last.step < STILL or any_of(evidence, SPECIFIC):
        return None
    times = rates.best / rates.present
    return Suspicion(
        cause="learning-rate-too-low",
        strength=(0.9 if times >= 30 * 0.99 else 0.7) * (0.5 if any_of(evidence, LOSSES) else 1.0),
        where=evidence.problem.optimizer.site.rsplit("/", 1)[-1],
        summary=f"At a learning rate of {rates.present:.2g} a step moves the weights by {gradients.last.step:.1g} of "
        f"themselves; {times:.0f} times that rate brings the loss down in {rates.steps} steps.",
        evidence=(
            Figure(f"loss after {rates.steps} steps at {rates.present:.2g}", rates.at(rates.present)),
            Figure(f"loss after {rates.steps} steps at {rates.best:.2g}", rates.at(rates.best)),
            Figure("loss at the start", rates.initial),
            Figure("step / weights at the end", gradients.last.step, samples=len(gradients.last.layers)),
        ),
        remedies=tuple(change_learning_rate(evidence.problem, rate) for rate in rates.suggested),
    )


def _drops(rates: Rates) -> bool:
    here, best = rates.initial - rates.at(rates.present), rates.initial - rates.at(rates.best)
    return math.isfinite(best) and best > 0 and best > DROPS * here


RULE = Rule(
    cause="learning-rate-too-low",
    lesson="The loss falls by lr times the squared gradient a step, while the step is small. A rate a hundred times "
    "too small needs a hundred times the steps, and a plateau that a usual step crosses in minutes takes days.",
    told_by="A rate ten times the present one or more brings the loss down at least four times as far in the same "
    "steps, while the present steps move the weights by less than 3e-4 and nothing else explains that.",
    cures="A larger learning rate (the figure is filled in).",
    needs=("rates", "gradients"),
    judge=judge,
)
