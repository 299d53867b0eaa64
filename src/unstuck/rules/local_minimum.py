"""local-minimum: no direction goes down from here, and the loss is clearly above what the data allow."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.remedies.initialization import another_start
from unstuck.rules.point_figures import BOUNCING, falls_short, figures
from unstuck.rules.rule import Rule, Suspicion


def judge(evidence: Evidence) -> Suspicion | None:
    """A certified minimum of a training that stays behind a reference on the same data."""
    found, problem = evidence.curvature, evidence.problem
    assert found is not None and problem is not None
    point = found.point
    # What falls has not arrived, and what was clearly lower before is not held here.
    moves = evidence.history is not None and (evidence.history.rose or not evidence.history.stands)
    if point.verdict != "minimum" or moves or found.sharpness > BOUNCING or not falls_short(evidence):
        return None
    exact = "" if not point.ends.least.failure else f" with probability {1 - point.ends.least.failure:.3g}"
    return Suspicion(
        cause="local-minimum",
        strength=0.85,
        where=f"after step {problem.loop.steps}",
        summary=f"The gradient is gone and no direction goes down (smallest curvature at least "
        f"{point.ends.least.low:.3g}{exact}), but the data allow of more.",
        evidence=figures(point),
        remedies=tuple(another_start(problem, seed) for seed in (1, 2)),
    )


RULE = Rule(
    cause="local-minimum",
    lesson="A minimum that is not the lowest holds every method that only goes down. In wide networks such minima are "
    "rare: most points where training stops have directions that still go down. In narrow ones they do occur.",
    told_by="The loss stands still, the gradient over all recorded data is not told from zero, no curvature is below "
    "the stated tolerance (exactly, or with the stated probability), and a reference reaches clearly more.",
    cures="Another start (another seed before the model is made); in a wider network such minima are rarer.",
    needs=("curvature", "level", "references"),
    judge=judge,
)
