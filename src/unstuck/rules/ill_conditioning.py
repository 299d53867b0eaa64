"""ill-conditioning: the steepest directions hold the step down, and what is left to win lies along flat ones."""

from __future__ import annotations

import torch

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.learning_rate import change_optimizer
from unstuck.remedies.options import usual_momentum
from unstuck.rules.point_figures import BOUNCING, figures
from unstuck.rules.rule import Rule, Suspicion

LIMIT = 0.3
"""lr·λmax / 2(1 + β): from here a step four times as large would be unstable along the steepest direction."""

FLAT = 0.5
"""More than half of the decrease left lies along directions a hundred times flatter than the steepest."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Plain descent whose step is as large as the steepest direction allows, with the way down along flat ones."""
    found, problem = evidence.curvature, evidence.problem
    assert found is not None and problem is not None and problem.optimizer is not None
    if not (LIMIT < found.sharpness <= BOUNCING and found.flat_left > FLAT):
        return None
    momentum = float(problem.optimizer.groups[0][0].get("momentum", 0.0))
    return Suspicion(
        cause="ill-conditioning",
        strength=0.8,
        where=problem.optimizer.site.rsplit("/", 1)[-1],
        summary=f"The step is at {100 * found.sharpness:.0f} % of what the steepest direction allows, and "
        f"{100 * found.flat_left:.0f} % of the decrease still promised lies along directions more than a hundred times "
        "flatter: they need more than a hundred times the steps.",
        evidence=(
            Figure("step over the largest stable one along the steepest direction", found.sharpness),
            Figure("share of the decrease left along directions 100 times flatter", found.flat_left),
            Figure("decrease left, over the loss", found.left / max(abs(found.point.loss), 1e-300)),
            *figures(found.point)[-1:],
        ),
        remedies=(
            *([usual_momentum(problem)] if momentum < 0.5 else []),
            *(change_optimizer(problem, torch.optim.Adam, lr=lr) for lr in (1e-2, 1e-3)),
        ),
    )


RULE = Rule(
    cause="ill-conditioning",
    lesson="One step size serves all directions. It may not exceed 2/λmax, or the steepest direction diverges; along a "
    "direction a hundred times flatter that is a hundredth of the step that would do. Most of the loss lies there.",
    told_by="lr·λmax is near its limit, 2(1 + momentum), and more than half of what the quadratic model still promises "
    "lies along directions a hundred times flatter than the steepest.",
    cures="Momentum, or an optimizer that scales its steps (Adam); scaled inputs and normalization mend the landscape.",
    needs=("curvature",),
    judge=judge,
)
