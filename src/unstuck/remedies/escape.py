"""Out of a saddle: one step along the direction of negative curvature, from where the training was left."""

from __future__ import annotations

from unstuck.curvature.escape import Escape, moved
from unstuck.problem import Problem
from unstuck.remedies.remedy import Remedy


def leave_saddle(problem: Problem, away: Escape) -> Remedy:
    """A step of the measured length along the eigenvector of the smallest eigenvalue, then the training as it is."""
    name = problem.model_name
    return Remedy(
        "escape",
        f"step {abs(away.length):.3g} along the direction of negative curvature, once, and train on",
        f"{name}.load_state_dict(unstuck.escape(unstuck.Problem({name}, criterion, loader)))",
        lambda p: moved(p, away),
        on="train",
        against="from the end",
    )
