"""underfitting-capacity: the network is too narrow for what a reference model reads from the same data."""

from __future__ import annotations

from unstuck.errors import UnstuckError
from unstuck.evidence import Evidence
from unstuck.probes.references import LINEAR
from unstuck.problem import Problem
from unstuck.records import Figure
from unstuck.remedies.wider import CONVS, hidden_layers, widen, width
from unstuck.rules.rule import Rule, Suspicion

BEHIND = 0.05
"""A held-out score of a reference this much above the network's own score on what it was trained on: between trained
networks and references on digits, Fashion-MNIST and diabetes the former were never behind by more than 0.03."""

NARROW, NARROW_CHANNELS = 8, 2


def judge(evidence: Evidence) -> Suspicion | None:
    """A bottleneck (or no hidden layer at all), and references far ahead of the training's own score."""
    references, level, problem = evidence.references, evidence.level, evidence.problem
    assert references is not None and level is not None and problem is not None
    own, best = max(level.train.value, level.train_mode.value), references.best
    if not references.informative or references.kind == "tokens":
        return None
    if not own < best.held_out - BEHIND - 2 * references.error:
        return None
    narrowest = _bottleneck(problem)
    if narrowest is None:
        return None
    where, units = narrowest
    straight = [m.held_out for m in references.models if m.name == LINEAR]
    if not units and straight and own < straight[0] - BEHIND - 2 * references.error:
        return None  # what a linear model reaches, a network without a hidden layer could
    what = f"only {units} unit{'s' * (units > 1)} at {where}" if units else "no hidden layer"
    return Suspicion(
        "underfitting-capacity",
        0.75,
        where,
        f"The network has {what}: it reaches {own:.2f} on its own training samples, where a {best.name} reaches "
        f"{best.held_out:.2f} on samples it never saw.",
        (
            Figure(f"train {level.metric}", own, samples=level.train.samples),
            Figure(
                f"held-out {references.metric} of the best reference ({best.name})",
                best.held_out,
                error=references.error,
                samples=references.held_rows,
            ),
            Figure("units of the narrowest hidden layer", float(units)),
        ),
        (widen(problem),),
    )


def _bottleneck(problem: Problem) -> tuple[str, int] | None:
    """The narrowest hidden layer's path and width; ("model", 0) where there is none; None where no layer is narrow."""
    try:
        layers = hidden_layers(problem)
    except (UnstuckError, RuntimeError):
        return None
    if not layers:
        return problem.model_name, 0
    name, module = min(
        layers, key=lambda pair: width(pair[1]) / (NARROW_CHANNELS if isinstance(pair[1], CONVS) else NARROW)
    )
    limit = NARROW_CHANNELS if isinstance(module, CONVS) else NARROW
    return (f"{name} ({type(module).__name__})", width(module)) if width(module) <= limit else None


RULE = Rule(
    cause="underfitting-capacity",
    lesson="A network can be too small: everything it tells the next layer must pass through its narrowest one, and "
    "without a hidden layer it can only draw straight borders. Then no optimizer lowers the loss further.",
    told_by="A plain reference model is clearly better on samples it never saw than the network is on its own training "
    "samples, and the network has a bottleneck or no hidden layer.",
    cures="Wider hidden layers, or one more.",
    needs=("references", "level"),
    judge=judge,
)
