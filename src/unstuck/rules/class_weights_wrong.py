"""class-weights-wrong: class weights take a class out of the loss."""

from __future__ import annotations

import torch

from unstuck.criterion import class_weights
from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.objective import drop_weights, weigh_classes
from unstuck.rules.rule import Rule, Suspicion

IGNORED = 0.2
"""A class is pushed out when its share of the loss is below this part of both its share of the samples and an even
share. Balanced weights, and anything between them and none, leave every class at more than the smaller of the two; the
inverse of a balanced weight takes a class of a tenth to 0.12 of it."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Share of each class in the loss (weight times frequency) against its frequency and against an even share.

    A weight of exactly 0 is how a padding class is left out on purpose.
    """
    problem, anatomy, data = evidence.problem, evidence.anatomy, evidence.data
    assert problem is not None and anatomy is not None and data is not None
    shares = torch.tensor(data.targets.shares if data.targets is not None else ())
    weights = class_weights(anatomy.criterion, len(shares))
    if weights is None or len(shares) < 2 or problem.criterion.handwritten:
        return None
    counted = (shares > 0) & (weights > 0)
    pull = weights * shares / (weights * shares).sum()
    fair = torch.minimum(shares, torch.full_like(shares, 1 / int(counted.sum() or 1)))
    ratio = torch.where(counted, pull / fair.clamp_min(1e-12), torch.inf)
    worst = int(ratio.argmin())
    if not float(ratio[worst]) < IGNORED:
        return None
    return Suspicion(
        cause="class-weights-wrong",
        strength=0.92,
        where=problem.criterion.site.rsplit("/", 1)[-1],
        summary=f"Class {worst} makes up {float(shares[worst]):.1%} of the samples, but the class weights leave it "
        f"{float(pull[worst]):.2%} of the loss: the network may ignore it.",
        evidence=(
            Figure(f"share of class {worst} in the samples", float(shares[worst]), samples=data.targets.samples),  # type: ignore[union-attr]
            Figure(f"share of class {worst} in the loss", float(pull[worst])),
            Figure("largest weight over smallest", float(weights.max() / weights[weights > 0].min())),
        ),
        remedies=(drop_weights(problem), weigh_classes(problem, tuple(shares.tolist()))),
        # A class that gets a tenth of both its own and an even share can be ignored in a training that scores well.
        fault=True,
    )


RULE = Rule(
    cause="class-weights-wrong",
    lesson="Class weights multiply each class's share of the loss. Weights that balance make all shares equal; weights "
    "proportional to the counts, or inverse ones squared, hand the loss to one class and the rest are given up.",
    told_by="A class's share of the loss is below a tenth of its share of the samples and of an even share.",
    cures="No weights, or weights inverse to the class frequencies.",
    needs=("anatomy", "data"),
    judge=judge,
)
