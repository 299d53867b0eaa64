"""symmetric-initialization: units of one layer start alike and receive alike gradients, so they stay one unit."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.probes.layers import Layer
from unstuck.records import Figure
from unstuck.remedies.initialization import reinitialize
from unstuck.rules.rule import Rule, Suspicion

ALIKE = 0.5
"""Share of a layer's units that equal another in weights and in gradient. A random start gives 0; a zero-initialized
head gives 0 as well, because its gradients differ from class to class."""


def judge(evidence: Evidence) -> Suspicion | None:
    """A layer whose units share weights and gradient at the start."""
    gradients, problem = evidence.gradients, evidence.problem
    assert gradients is not None and problem is not None
    alike = [layer for layer in gradients.first.layers if layer.identical > ALIKE and layer.units > 1]
    if not alike:
        return None
    worst = max(alike, key=lambda layer: (layer.identical, layer.units))
    after = next((layer.identical for layer in gradients.last.layers if layer.path == worst.path), 0.0)
    return Suspicion(
        cause="symmetric-initialization",
        strength=0.97 if after > ALIKE else 0.7,
        where=worst.where,
        summary=f"The units of {worst.where} start with the same weights and get the same gradient: "
        f"{worst.units} units do the work of {_distinct(worst)}.",
        evidence=(
            Figure("units alike in weights and gradient at the start", worst.identical, samples=worst.units),
            Figure("the same at the end", after, samples=worst.units),
            Figure("layers that are so", float(len(alike)), samples=len(gradients.first.layers)),
        ),
        remedies=(reinitialize(problem),),
    )


def _distinct(layer: Layer) -> int:
    return 1 + round((1 - layer.identical) * (layer.units - 1))


RULE = Rule(
    cause="symmetric-initialization",
    lesson="Units that start with equal weights compute the same output and receive the same gradient. They stay equal "
    "for ever, and a layer of a hundred of them is a layer of one. A random start breaks the symmetry.",
    told_by="More than half of a hidden layer's units equal another unit in their weights and in their gradient.",
    cures="Random initial weights (He, Glorot); only biases, and the last layer, may start at zero.",
    needs=("gradients",),
    judge=judge,
)
