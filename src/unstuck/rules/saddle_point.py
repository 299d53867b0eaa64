"""saddle-point: the gradient is gone, but the loss bends down along a direction that plain steps do not find."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.escape import leave_saddle
from unstuck.rules.point_figures import figures
from unstuck.rules.rule import Rule, Suspicion


def judge(evidence: Evidence) -> Suspicion | None:
    """A certified saddle with a way out along which the loss itself goes down."""
    found, problem = evidence.curvature, evidence.problem
    assert found is not None and problem is not None
    point, away = found.point, found.away
    if point.verdict not in {"saddle", "maximum"} or away is None:
        return None
    return Suspicion(
        cause="saddle-point",
        strength=0.9 if not point.ends.least.failure else 0.85,
        where=f"after step {problem.loop.steps}",
        summary=f"The gradient is gone, yet this is no minimum: the smallest curvature is "
        f"{point.ends.least.high:.3g}, and a step of {abs(away.length):.3g} along its direction takes the loss from "
        f"{away.loss:.4g} to {away.after:.4g}.",
        evidence=(
            *figures(point),
            Figure("loss after one step along it", away.after, samples=point.samples),
        ),
        remedies=(leave_saddle(problem, away),),
    )


RULE = Rule(
    cause="saddle-point",
    lesson="At a critical point the gradient is zero and first-order steps stand still. The Hessian's eigenvalues tell "
    "what it is: one that is negative means a saddle, and along its eigenvector the loss goes down. Nearly every "
    "point of a deep network has some negative curvature; it is a problem only where leaving it pays.",
    told_by="The gradient over all recorded data is not told from zero, or promises less than a thousandth of the "
    "loss; the smallest eigenvalue is below zero, proven by a Rayleigh quotient; and the loss itself, scanned "
    "along that direction, goes down.",
    cures="One step along the eigenvector of the smallest eigenvalue, as far as the loss goes down; then train on.",
    needs=("curvature",),
    judge=judge,
)
