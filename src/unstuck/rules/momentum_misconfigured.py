"""momentum-misconfigured: momentum that remembers too long, or an epsilon that drowns the adaptive scale."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.options import usual_epsilon, usual_momentum
from unstuck.rules.rule import Rule, Suspicion

HEAVY = 0.985
"""Momentum above this remembers over 66 steps. Usual are 0.9 to 0.95, at most 0.99 (Sutskever et al. 2013, and there
with tiny rates and long schedules)."""

EPSILON = 1e-4
"""Usual are 1e-8 to 1e-6."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Momentum (or beta1) above `HEAVY`, beta2 below beta1's usual, or epsilon above the gradient's own scale."""
    problem = evidence.problem
    if problem is None or problem.optimizer is None:
        return None
    hyper = dict(problem.optimizer.groups[0][0])
    return _heavy(evidence, hyper) or _drowned(evidence, hyper)


def momentum_of(hyper: dict[str, Any]) -> float:
    """Momentum of SGD or RMSprop, beta1 of Adam and its kin; 0 where there is none."""
    betas = hyper.get("betas")
    return float(betas[0]) if betas else float(hyper.get("momentum") or 0.0)


def _heavy(evidence: Evidence, hyper: dict[str, Any]) -> Suspicion | None:
    problem, history = evidence.problem, evidence.history
    assert problem is not None and problem.optimizer is not None
    momentum = momentum_of(hyper)
    if momentum < HEAVY:
        return None
    memory = 1 / max(1 - momentum, 1e-9)
    bounce = history.bounce if history else float("nan")
    return Suspicion(
        cause="momentum-misconfigured",
        strength=0.95 if momentum >= 0.995 else 0.75,
        where=problem.optimizer.site.rsplit("/", 1)[-1],
        summary=f"A momentum of {momentum:g} averages over {memory:.0f} steps: the iterates overshoot and swing back"
        + (f", and the training has {evidence.loop.steps}." if evidence.loop.steps else "."),
        evidence=(
            Figure("momentum", momentum),
            Figure("steps it remembers, 1/(1 − momentum)", memory, unit="steps"),
            Figure("highest loss / first loss", history.highest / max(history.first, 1e-12) if history else bounce),
        ),
        # Overshooting shows only after a good part of what is remembered: early on more momentum is merely faster.
        remedies=(replace(usual_momentum(problem), steps=min(round(memory / 2), evidence.loop.steps // 2)),),
    )


def _drowned(evidence: Evidence, hyper: dict[str, Any]) -> Suspicion | None:
    problem, gradients = evidence.problem, evidence.gradients
    epsilon = float(hyper.get("eps") or 0.0)
    if ("betas" not in hyper and "alpha" not in hyper) or epsilon < EPSILON or gradients is None:
        return None
    assert problem is not None and problem.optimizer is not None
    entries = sorted(layer.entry for layer in gradients.first.layers)
    typical = entries[len(entries) // 2] if entries else 0.0
    if epsilon < typical:
        return None
    return Suspicion(
        cause="momentum-misconfigured",
        strength=0.9 if epsilon > 10 * typical else 0.7,
        where=problem.optimizer.site.rsplit("/", 1)[-1],
        summary=f"An epsilon of {epsilon:g} is {epsilon / max(typical, 1e-30):.2g} times the gradient it is added to: "
        "the adaptive method adapts nothing.",
        evidence=(
            Figure("epsilon", epsilon),
            Figure("typical gradient an entry", typical, samples=len(entries)),
            Figure("step / weights at the start", gradients.first.step),
        ),
        remedies=(usual_epsilon(problem),),
    )


RULE = Rule(
    cause="momentum-misconfigured",
    lesson="Momentum m sums the last 1/(1-m) gradients: the step is that much larger, and a turn takes that long. "
    "Beyond 0.99 the iterates swing past the minimum and back. Adam divides by the gradient's size plus epsilon: an "
    "epsilon above that size turns it into plain gradient descent with a tiny rate.",
    told_by="Momentum (beta1) of 0.985 and more, or epsilon above the gradient's typical size.",
    cures="Momentum 0.9, betas (0.9, 0.999), epsilon 1e-8.",
    needs=(),
    judge=judge,
)
