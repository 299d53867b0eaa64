"""nonfinite-loss: NaN or infinity appears in the training; the first call that made it is named."""

from __future__ import annotations

import math

from unstuck.evidence import Evidence
from unstuck.probes.numbers import Origin
from unstuck.records import Figure
from unstuck.remedies.clipping import add_clipping
from unstuck.remedies.learning_rate import change_learning_rate
from unstuck.remedies.numbers import GUARDS, guard
from unstuck.remedies.remedy import Remedy
from unstuck.rules.rule import Rule, Suspicion

RUNAWAY = 1e3
"""A loss that grew so many times over its start before it broke ran away: the step was too large, and the call where
the numbers ended is but the last victim."""

USUAL = 1e6
"""Arguments larger than this are themselves the result of a divergence, whatever call they break in."""


def judge(evidence: Evidence) -> Suspicion | None:
    """The recorded run had a loss or parameters that are not finite, on finite data."""
    numbers, problem = evidence.numbers, evidence.problem
    if numbers is None or problem is None or not numbers.broken or not numbers.inputs_finite:
        return None
    origin = numbers.origin
    singular = origin is not None and origin.key[0] in GUARDS and not _ran_away(evidence, origin)
    return Suspicion(
        cause="nonfinite-loss",
        strength=0.97 if singular else 0.6,
        where=origin.where if origin else "",
        summary=_summary(origin),
        evidence=_figures(evidence, origin),
        remedies=_remedies(evidence, origin, singular),
        fault=singular,
    )


def _ran_away(evidence: Evidence, origin: Origin) -> bool:
    losses = [abs(loss) for loss in evidence.loop.losses if math.isfinite(loss)]
    grown = bool(losses) and max(losses) > RUNAWAY * max(losses[0], 1e-6)
    return grown or max(abs(origin.low), abs(origin.high)) > USUAL


def _summary(origin: Origin | None) -> str:
    if origin is None:
        return "The loss or the parameters stopped being finite; the call that did it was not met again on a copy."
    name = origin.key[0].strip("_")
    if origin.backward:
        return (
            f"The backward pass of {name} at {origin.where} makes the first gradient that is not finite: its argument "
            f"goes down to {origin.low:.3g}, where the derivative is infinite."
        )
    return (
        f"{name} at {origin.where} makes the first value that is not finite, from arguments between {origin.low:.3g} "
        f"and {origin.high:.3g}."
    )


def _figures(evidence: Evidence, origin: Origin | None) -> tuple[Figure, ...]:
    losses = evidence.loop.losses
    first = next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    sound = [loss for loss in losses if math.isfinite(loss)]
    figures = [Figure("first step with a loss that is not finite", float(first), samples=len(losses))]
    if sound:
        figures.append(Figure("last finite loss", sound[-1]))
    if origin is not None:
        figures.append(Figure(f"smallest argument of {origin.key[0]}", origin.low))
        figures.append(Figure(f"largest argument of {origin.key[0]}", origin.high))
    return tuple(figures)


def _remedies(evidence: Evidence, origin: Origin | None, singular: bool) -> tuple[Remedy, ...]:
    problem = evidence.problem
    assert problem is not None
    guarded = [guard(origin)] if origin is not None else []
    slower = [add_clipping(problem)]
    if problem.optimizer is not None and problem.optimizer.lr > 0:
        slower.insert(0, change_learning_rate(problem, problem.optimizer.lr / 10))
    # Where a call is at fault a smaller step only puts off the day.
    found = guarded if singular else [*slower, *guarded]
    return tuple(remedy for remedy in found if remedy is not None)


RULE = Rule(
    cause="nonfinite-loss",
    lesson="log(0), 1/0, exp(89) and the square root's derivative at 0 are not finite, and a single NaN spreads "
    "through every parameter in one step. From then on nothing can be learnt.",
    told_by="The recorded run is traced from its last sound state: the first call that makes a value (or, backwards, "
    "a gradient) that is not finite from ones that are.",
    cures="An epsilon or a clamp at that call; the fused loss (log_softmax, BCE with logits); where the loss ran away, "
    "a smaller step or clipping.",
    needs=("numbers",),
    judge=judge,
)
