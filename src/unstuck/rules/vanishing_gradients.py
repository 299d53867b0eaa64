"""vanishing-gradients: the gradient falls by orders of magnitude on its way to the first layer or the first time."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.probes.activations import SQUASHERS
from unstuck.probes.gradients import Point
from unstuck.records import Figure
from unstuck.remedies.activation import normalized, rectified
from unstuck.remedies.gates import gated
from unstuck.remedies.initialization import reinitialize
from unstuck.remedies.remedy import Remedy
from unstuck.rules import bad_initialization_scale, symmetric_initialization
from unstuck.rules.rule import Rule, Suspicion

VANISHED = 1e-3
"""First over largest gradient of a layer's output, at the start and at the end. Networks of up to six layers with
PyTorch's own start lose a factor 1/√6 a ReLU layer (5e-3 in all); ten sigmoid layers leave 4e-10 (measured)."""

DEPTH = 4
"""Fewer layers than these do not lose a gradient by depth alone."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Through depth, or through time in a recurrent network whose loss is taken at the end."""
    if symmetric_initialization.judge(evidence) or bad_initialization_scale.judge(evidence):
        return None
    return _through_depth(evidence) or _through_time(evidence)


def _through_depth(evidence: Evidence) -> Suspicion | None:
    gradients, problem = evidence.gradients, evidence.problem
    assert gradients is not None and problem is not None
    start, end = _left(gradients.first), _left(gradients.last)
    signals = gradients.first.signals
    if len(signals) < DEPTH or not 0 < start < VANISHED or not 0 <= end < VANISHED:
        return None
    return Suspicion(
        cause="vanishing-gradients",
        strength=0.95 if start < VANISHED / 10 else 0.7,
        where=signals[0].where,
        summary=f"On its way from {signals[-1].where} to {signals[0].where} the gradient shrinks to {start:.1g} of "
        "itself: the first layers do not learn.",
        evidence=(
            Figure("gradient at the first layer, as a share of the largest", start, samples=len(signals)),
            Figure("the same at the end of the training", end, samples=len(signals)),
            Figure(f"gradient norm at {signals[0].where}", signals[0].norm),
            Figure(f"gradient norm at {signals[-1].where}", signals[-1].norm),
        ),
        remedies=_depth_remedies(evidence),
    )


def _left(point: Point) -> float:
    norms = [signal.norm for signal in point.signals]
    return norms[0] / max(norms) if norms and max(norms) > 0 else 0.0


def _depth_remedies(evidence: Evidence) -> tuple[Remedy, ...]:
    problem, activations = evidence.problem, evidence.activations
    assert problem is not None
    seen = activations.initial if activations else ()
    squashing = tuple(a.key for a in seen if a.kind in SQUASHERS)
    remedies = [rectified(problem, squashing)] if squashing else [reinitialize(problem)]
    return (normalized(tuple(a.key for a in seen)), *remedies) if seen else tuple(remedies)


def _through_time(evidence: Evidence) -> Suspicion | None:
    gradients, problem = evidence.gradients, evidence.problem
    assert gradients is not None and problem is not None
    first, last = gradients.first.through_time, gradients.last.through_time
    layer = next((x for x in gradients.first.layers if x.kind == "RNN"), None)
    if len(first) < 2 * DEPTH or layer is None or not _faded(first) or not _faded(last):
        return None
    return Suspicion(
        cause="vanishing-gradients",
        strength=0.9,
        where=layer.where,
        summary=f"Over {len(first)} time steps of {layer.where} the gradient shrinks to "
        f"{first[0] / max(first):.1g} of itself: what came early cannot be learnt.",
        evidence=(
            Figure("gradient at the first time step, as a share of the largest", first[0] / max(first)),
            Figure("the same at the end of the training", last[0] / max(max(last), 1e-300)),
            Figure("time steps", float(len(first))),
        ),
        remedies=(gated(problem),),
    )


def _faded(norms: tuple[float, ...]) -> bool:
    """Nearly all of the gradient lies at the last few times."""
    return bool(norms) and max(norms) > 0 and max(norms[: len(norms) // 2]) < VANISHED * max(norms)


RULE = Rule(
    cause="vanishing-gradients",
    lesson="Backpropagation multiplies by each layer's derivative and weights. Where these are below 1 (a sigmoid's "
    "derivative is at most 1/4) the product falls geometrically with depth, or with time in a recurrent network.",
    told_by="The gradient of the first layer's output is below a thousandth of the largest, at the start and at the "
    "end, while the weights themselves have a sound scale.",
    cures="ReLU and its kin, normalization layers, skip connections, gates (LSTM, GRU) in recurrent networks.",
    needs=("gradients",),
    judge=judge,
)
