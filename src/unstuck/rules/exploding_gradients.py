"""exploding-gradients: the gradient grows by orders of magnitude towards the first layer, or single steps tower."""

from __future__ import annotations

import math

from unstuck.evidence import Evidence
from unstuck.probes.gradients import RECURRENT, Signal
from unstuck.records import Figure
from unstuck.remedies.clipping import add_clipping
from unstuck.remedies.initialization import reinitialize
from unstuck.rules import bad_initialization_scale, unscaled_inputs, unscaled_targets, wrong_loss_sign_or_scale
from unstuck.rules.rule import Rule, Suspicion, any_of

GROWN, GREW = 1e3, 30.0
"""Gradient of the first layer's output over the smallest of any layer's: alone, or beside a large norm. Sound starts
stay below 10, embeddings apart (measured)."""

LARGE = 30.0
"""Norm of a gradient at the start: sound ones have 0.3 to 10 (measured), with residual sums up to 35."""

TOWERS, OVER = 10.0, 4.0
"""Largest gradient norm of a recurrent network in the first steps: over their median, and over the very first ones.
Pascanu et al. (2013) clip at the usual norm, and see explosions of many times that. A ReLU network without clipping
had 30 and 7, clipped recurrent ones 2 (measured)."""

FEW = 6
"""Layers that a gradient must pass for its growth to be one through depth."""

SPECIFIC = (unscaled_inputs, unscaled_targets, wrong_loss_sign_or_scale)
"""What makes every gradient large, recurrent or not."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Through depth at the start; or in a recurrent network, at the start or on the way, where nothing clips."""
    gradients, problem = evidence.gradients, evidence.problem
    assert gradients is not None and problem is not None
    signals = tuple(s for s in gradients.first.signals if s.key[0] != "embedding")
    if evidence.loop.clip is not None or len(signals) < 2 or any_of(evidence, SPECIFIC):
        return None
    lowest = min(signal.norm for signal in signals)
    depth = signals[0].norm / lowest if lowest > 0 else 0.0
    recurrent = _recurrent(gradients.first.signals)
    start, (spike, over) = max(gradients.first.norms), _spike(evidence)
    deep = depth > GROWN or (depth > GREW and start > LARGE and len(signals) > FEW)
    if not (deep or (recurrent and (start > LARGE or (spike > TOWERS and over > OVER)))):
        return None
    if deep and bad_initialization_scale.judge(evidence):
        return None
    where = (recurrent or signals[0]).where
    return Suspicion(
        cause="exploding-gradients",
        strength=0.95 if deep or start > LARGE else 0.85,
        where=where,
        summary=_summary(where, depth if deep else 0.0, start, spike),
        evidence=(
            Figure("gradient norm at the start", start, samples=len(gradients.first.norms)),
            Figure("largest / usual gradient norm along the way", spike, samples=len(_norms(evidence))),
            Figure("gradient at the first layer / smallest at any", depth, samples=len(signals)),
        ),
        remedies=(add_clipping(problem), *((reinitialize(problem),) if deep else ())),
    )


def _summary(where: str, depth: float, start: float, spike: float) -> str:
    if depth:
        return f"The gradient grows {depth:.1g}-fold on its way down to {where}, and nothing clips it."
    if start > LARGE:
        return f"Through the time steps of {where} the gradient grows to a norm of {start:.3g}, and nothing clips it."
    return f"Single steps of {where} have {spike:.3g} times the usual gradient, and nothing clips it."


def _recurrent(signals: tuple[Signal, ...]) -> Signal | None:
    """A recurrent call, or a cell that runs step by step (the same layer many times)."""
    often = {s.where: sum(o.where == s.where for o in signals) for s in signals}
    return next((s for s in signals if s.key[0] in RECURRENT or often[s.where] > 4), None)


def _norms(evidence: Evidence) -> list[float]:
    """Gradient norms in a trial at the present rate; where there was none, as watched."""
    watched = tuple(norm for _, norm in evidence.loop.gradient_norms)
    norms = evidence.rates.norms if evidence.rates and len(evidence.rates.norms) > 8 else watched
    return [min(norm, 1e30) for norm in norms if not math.isnan(norm)]


def _spike(evidence: Evidence) -> tuple[float, float]:
    """The largest norm over the usual one, and over the first ones."""
    assert evidence.gradients is not None
    norms = sorted(_norms(evidence))
    if len(norms) <= 8:
        return 0.0, 0.0
    return norms[-1] / max(norms[len(norms) // 2], 1e-30), norms[-1] / max(*evidence.gradients.first.norms, 1e-30)


RULE = Rule(
    cause="exploding-gradients",
    lesson="Backpropagation multiplies by the same recurrent weights at every time step, or by each layer's. Where "
    "they stretch, the product grows geometrically: one step throws the weights far away, and the loss with them.",
    told_by="A recurrent network's gradient is tens of times the usual size at the start or in single steps, or the "
    "gradient grows a thousandfold towards the first layer; and nothing clips it.",
    cures="Clip the gradient's norm before each step; gates; a sound initialization.",
    needs=("gradients",),
    judge=judge,
)
