"""saturated-activations: sigmoid or tanh units that sit where their derivative is next to nothing."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.probes.activations import SQUASHERS, Activation
from unstuck.probes.cells import SIGMOIDS
from unstuck.records import Figure
from unstuck.remedies.activation import rectified
from unstuck.remedies.initialization import reinitialize
from unstuck.remedies.learning_rate import change_learning_rate
from unstuck.remedies.remedy import Remedy
from unstuck.rules import symmetric_initialization
from unstuck.rules.rule import Rule, Suspicion

MANY = 0.5
"""Share of a layer's outputs with a derivative below 5 % of its largest. At a sound start there are none (0.00 to 0.02
measured); trained tanh layers reach 0.5 in good health, so the end of a training counts only beyond `MOST`."""

MOST = 0.8

DRIVEN = 0.45
"""Strength where training drove the units there: weak, as something drove them (a step too large, as a rule)."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Hidden squashing units, saturated from the start, or driven there."""
    activations, problem = evidence.activations, evidence.problem
    assert activations is not None and problem is not None
    output = {call.key for call in evidence.anatomy.head} if evidence.anatomy else set()
    start = {a.key: a for a in activations.initial if a.kind in SQUASHERS and a.key not in output}
    hidden = [a for a in activations.last if a.key in start]
    born = [a for a in hidden if start[a.key].saturated > MANY]
    driven = [a for a in hidden if a.saturated > MOST]
    if not (born or driven) or (evidence.gradients and symmetric_initialization.judge(evidence)):
        return None
    worst = max(born or driven, key=lambda a: start[a.key].saturated if born else a.saturated)
    share = start[worst.key].saturated if born else worst.saturated
    return Suspicion(
        cause="saturated-activations",
        strength=(0.45 + 0.5 * share if born else DRIVEN) * (0.7 if born and not _heavy(evidence) else 1.0),
        where=worst.where,
        summary=f"{share:.0%} of the outputs of {worst.where} sit where a {worst.kind}'s slope is next to nothing"
        + (", from the start on" if born else "")
        + ": little gradient passes.",
        evidence=_figures(start[worst.key], worst, len(born or driven), len(hidden)),
        remedies=_remedies(evidence, bool(born), tuple(start)),
    )


def _heavy(evidence: Evidence) -> bool:
    """True if the weights are large: else it is the inputs that saturate the units."""
    return evidence.gradients is None or any(layer.gain > 2 for layer in evidence.gradients.first.layers)


def _figures(start: Activation, end: Activation, many: int, hidden: int) -> tuple[Figure, ...]:
    return (
        Figure("saturated outputs at the start", start.saturated, samples=start.samples * start.units),
        Figure("saturated outputs at the end", end.saturated, samples=end.samples * end.units),
        Figure("size (rms) of what enters the activation at the start", start.input_rms, samples=start.samples),
        Figure("saturated layers", float(many), samples=hidden),
    )


def _remedies(evidence: Evidence, born: bool, keys: tuple[tuple[str, int], ...]) -> tuple[Remedy, ...]:
    problem = evidence.problem
    assert problem is not None
    single = tuple(key for key in keys if key[0] not in SIGMOIDS)  # a cell's gates must stay between 0 and 1
    other = (rectified(problem, single),) if single else ()
    if born:
        return (reinitialize(problem), *other)
    smaller = (change_learning_rate(problem, problem.optimizer.lr / 10),) if problem.optimizer else ()
    return (*smaller, *other)


RULE = Rule(
    cause="saturated-activations",
    lesson="Far from zero a sigmoid or tanh is flat: its derivative, and with it the gradient of everything below, is "
    "next to nothing. Large initial weights, large inputs or large steps drive units there, and none brings them back.",
    told_by="More than half of a hidden layer's outputs have a derivative below 5 % of the largest, from the start on.",
    cures="Glorot initialization, standardized inputs, ReLU; a smaller step where training drove them there.",
    needs=("activations",),
    judge=judge,
)
