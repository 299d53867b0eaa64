"""Hyperparameters of the user's own optimizer: no decay, the usual momentum, the usual betas and epsilon."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from unstuck.problem import Problem
from unstuck.remedies.remedy import Remedy


def change_options(problem: Problem, id: str, text: str, **options: Any) -> Remedy:
    """The same optimizer with these hyperparameters in every group that has them."""
    recipe = problem.optimizer
    assert recipe is not None
    own = {key: value for key, value in options.items() if key in recipe.groups[0][0]}
    listed = ", ".join(f"{key}={value}" for key, value in own.items())
    return Remedy(
        id,
        text,
        f"torch.optim.{recipe.cls.__name__}({problem.model_name}.parameters(), lr={recipe.lr:.3g}, {listed})",
        lambda p: replace(p, optimizer=p.optimizer.with_options(**own)),
    )


def drop_weight_decay(problem: Problem) -> Remedy:
    """Weight decay 0 in every group."""
    return change_options(problem, "drop-weight-decay", "train without weight decay", weight_decay=0.0)


def usual_momentum(problem: Problem) -> Remedy:
    """Momentum 0.9, undamped; of Adam and its kin betas (0.9, 0.999)."""
    return change_options(
        problem, "usual-momentum", "use the usual momentum", momentum=0.9, dampening=0, betas=(0.9, 0.999)
    )


def usual_epsilon(problem: Problem) -> Remedy:
    """Epsilon 1e-8, as PyTorch's default is."""
    return change_options(problem, "usual-epsilon", "use the usual epsilon", eps=1e-8)
