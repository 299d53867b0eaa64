"""nonfinite-data: NaN or Inf in what enters the first layer, or in the targets."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.standardize import drop_unlabelled, impute
from unstuck.rules.rule import Rule, Suspicion


def judge(evidence: Evidence) -> Suspicion | None:
    """Any entry that is not finite: one is enough to make the loss NaN, and after the step every parameter."""
    problem, data = evidence.problem, evidence.data
    assert problem is not None and data is not None
    sick = [e for e in data.inputs if e.nonfinite > 0]
    targets = data.targets if data.targets is not None and data.targets.nonfinite > 0 else None
    if not sick and targets is None:
        return None
    where = sick[0].where if sick else problem.criterion.site.rsplit("/", 1)[-1]
    share = sick[0].nonfinite if sick else targets.nonfinite if targets else 0.0
    what = f"of what enters {where}" if sick else "of the targets"
    known = problem.criterion.key is not None
    return Suspicion(
        cause="nonfinite-data",
        strength=0.99,
        where=where,
        summary=f"{share:.2%} {what} is NaN or infinite: one such entry makes the loss NaN, and the step after it "
        "every parameter.",
        evidence=(
            *[Figure(f"share of entries not finite at {e.where}", e.nonfinite, samples=e.samples) for e in sick[:2]],
            *([Figure("share of targets not finite", targets.nonfinite, samples=targets.samples)] if targets else []),
        ),
        remedies=(
            *((impute(problem, sick),) if sick else ()),
            *((drop_unlabelled(problem),) if targets is not None and known else ()),
        ),
        fault=True,
    )


RULE = Rule(
    cause="nonfinite-data",
    lesson="NaN spreads through every sum it enters. Missing values, a logarithm of 0 or a division by a zero spread "
    "reach the loss with the first batch that holds them, and one step later the parameters.",
    told_by="Entries that are NaN or infinite in the tensors that enter the first layer, or in the targets.",
    cures="Fill gaps with the feature's mean (SimpleImputer), or drop the rows, before scaling.",
    needs=("data",),
    judge=judge,
)
