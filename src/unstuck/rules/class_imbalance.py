"""class-imbalance: the majority class alone explains the loss reached."""

from __future__ import annotations

from unstuck.criterion import IMBALANCED
from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.objective import weigh_classes
from unstuck.rules.rule import Rule, Suspicion

WEIGHABLE = frozenset({"cross_entropy", "nll", "bce", "bce_logits"})
MISSED = 0.5
"""Less than half of the way from a constant prediction to all classes found."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Classes so uneven that recalls are averaged (`criterion.IMBALANCED`), and most of the rare ones are not found."""
    problem, level, data = evidence.problem, evidence.level, evidence.data
    assert problem is not None and level is not None and data is not None
    criterion = problem.criterion
    if not criterion.balanced or criterion.kind not in WEIGHABLE or criterion.handwritten or data.targets is None:
        return None
    if level.majority <= IMBALANCED or not level.learnt < MISSED:
        return None
    reached = evidence.history.last if evidence.history else level.train.loss
    return Suspicion(
        cause="class-imbalance",
        strength=0.85,
        where=criterion.site.rsplit("/", 1)[-1],
        summary=f"One class makes up {level.majority:.1%} of the samples, and the network does little more than "
        f"predict it: the mean recall of the classes is {level.train.value:.2f}, a constant gets {level.chance:.2f}.",
        evidence=(
            Figure("share of the commonest class", level.majority, samples=data.targets.samples),
            Figure("mean recall of the classes", level.train.value, samples=level.train.samples),
            Figure("loss reached", reached),
            Figure("loss of a constant prediction", level.chance_loss),
        ),
        remedies=(weigh_classes(problem, data.targets.shares),),
    )


RULE = Rule(
    cause="class-imbalance",
    lesson="Where one class has nearly all samples, predicting it everywhere is nearly right, and nearly optimal for "
    "the loss: the rare classes contribute too little gradient to be found in the time given.",
    told_by="More than four fifths of the samples belong to one class, and the mean recall of the classes stays near "
    "that of a constant prediction.",
    cures="Weights inverse to the class frequencies (pos_weight for two classes), or sampling the classes evenly.",
    needs=("level", "data"),
    judge=judge,
)
