"""loss-mse-on-classification: squared error between class probabilities (or scores) and one-hot or 0/1 targets."""

from __future__ import annotations

import math

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.objective import cross_entropy
from unstuck.rules.loss_figures import dead
from unstuck.rules.rule import Rule, Suspicion

DISTANCES = frozenset({"mse", "l1", "smooth_l1", "huber"})
SQUASHED = frozenset({"softmax", "sigmoid"})

WEAK = 0.5
"""Below half of cross-entropy's gradient at the logits the squared error is by itself a reason to learn slowly (0.02 to
0.2 on the gallery's sick scripts, whose means also run over the classes)."""


def judge(evidence: Evidence) -> Suspicion | None:
    """A distance loss whose targets are one-hot rows or labels 0 and 1. Whether it does harm, the race tells."""
    problem, objective, level = evidence.problem, evidence.objective, evidence.level
    assert problem is not None and objective is not None and level is not None
    criterion = problem.criterion
    if criterion.kind not in DISTANCES or criterion.task not in {"onehot", "binary"}:
        return None
    ending = objective.ending
    squashed = ending is not None and ending.name in SQUASHED
    drop = (ending.key,) if ending is not None and squashed else ()
    share = objective.gradient_share
    return Suspicion(
        cause="loss-mse-on-classification",
        strength=0.97 if share < WEAK else 0.93 if squashed else 0.6,
        where=criterion.site.rsplit("/", 1)[-1],
        summary="The loss is the squared distance between "
        + ("class probabilities" if squashed else "class scores")
        + " and 0/1 targets: where a prediction is confidently wrong its gradient vanishes, where cross-entropy's is "
        "largest.",
        evidence=(
            Figure(f"train {level.metric}", level.train.value, samples=level.train.samples),
            Figure(f"{level.metric} of a constant prediction", level.chance),
            *(
                [Figure("gradient at the logits, as a share of cross-entropy's", share, samples=objective.samples)]
                if math.isfinite(share)
                else []
            ),
            *dead(evidence),
        ),
        remedies=(cross_entropy(problem, drop),),
    )


RULE = Rule(
    cause="loss-mse-on-classification",
    lesson="Squared error on softmax or sigmoid outputs sends back its gradient times p(1 − p): next to nothing where "
    "the network is confidently wrong, and averaged over the classes besides. Cross-entropy on logits sends p − t.",
    told_by="A squared (or absolute) distance compares the output with one-hot rows or 0/1 labels, and the same "
    "network learns more with cross-entropy.",
    cures="nn.CrossEntropyLoss (or BCEWithLogitsLoss for two classes) on the logits, without softmax or sigmoid.",
    needs=("objective", "level"),
    judge=judge,
)
