"""flat-region: neither gradient nor curvature says where to go."""

from __future__ import annotations

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.initialization import reinitialize
from unstuck.remedies.objective import squared_error
from unstuck.rules import dead_units, saturated_activations, symmetric_initialization, vanishing_gradients
from unstuck.rules.point_figures import figures
from unstuck.rules.rule import Rule, Suspicion, any_of

SPECIFIC = (dead_units, saturated_activations, symmetric_initialization, vanishing_gradients)
"""What makes a region flat, and has a name and a remedy of its own."""


def judge(evidence: Evidence) -> Suspicion | None:
    """A plateau: a move as long as the weights would change nothing, in the quadratic model."""
    found, problem = evidence.curvature, evidence.problem
    assert found is not None and problem is not None
    point = found.point
    if point.verdict != "flat" or any_of(evidence, SPECIFIC):
        return None
    values = problem.criterion.task == "regression" and problem.criterion.kind != "unknown"
    steepest = max(abs(point.ends.least.low), abs(point.ends.most.high))
    return Suspicion(
        cause="flat-region",
        strength=0.9,
        where=f"after step {problem.loop.steps}",
        summary=f"The loss is flat here: the gradient is {point.gradient:.2g} long and no curvature exceeds "
        f"{steepest:.2g}, so that a move as long as the weights ({point.length:.3g}) changes the loss by less than "
        "a hundredth.",
        evidence=(*figures(point), Figure("length of the weights", point.length)),
        remedies=(*([squared_error(problem)] if values else []), reinitialize(problem)),
        fault=True,
    )


RULE = Rule(
    cause="flat-region",
    lesson="On a plateau the gradient is zero and so is the curvature: nothing says where to go, and small steps stay. "
    "What made it flat (a start far from the data, a loss that gives up on large errors) is to be changed.",
    told_by="Gradient and curvature together would change the loss by less than a hundredth over a move as long as the "
    "weights themselves.",
    cures="A start elsewhere; a loss that is not flat far out.",
    needs=("curvature",),
    judge=judge,
)
