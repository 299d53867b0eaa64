"""Another learning rate, or another optimizer over the same parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from unstuck.problem import Problem
from unstuck.remedies.remedy import Remedy


def change_learning_rate(problem: Problem, lr: float) -> Remedy:
    """Every group's rate times `lr / (present rate of group 0)`."""
    recipe = problem.optimizer
    assert recipe is not None
    present = recipe.lr
    factor = lr / present if present else 0.0

    def apply(p: Problem) -> Problem:
        assert p.optimizer is not None
        return replace(p, optimizer=p.optimizer.scaled(factor) if factor else p.optimizer.with_options(lr=lr))

    name = recipe.cls.__name__
    return Remedy(
        "change-learning-rate",
        f"set the learning rate to {lr:.2g} (now {present:.2g})",
        f"torch.optim.{name}({problem.model_name}.parameters(), lr={lr:.2g})",
        apply,
        variant=f"{lr:.2g}",
    )


def change_optimizer(problem: Problem, cls: type[torch.optim.Optimizer], **options: Any) -> Remedy:
    """Another optimizer with `options`, over the same parameters."""

    def apply(p: Problem) -> Problem:
        assert p.optimizer is not None
        return replace(p, optimizer=p.optimizer.using(cls, **options))

    listed = ", ".join(
        f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in options.items()
    )
    return Remedy(
        "change-optimizer",
        f"train with {cls.__name__}",
        f"torch.optim.{cls.__name__}({problem.model_name}.parameters(), {listed})",
        apply,
        variant=f"{cls.__name__} {listed}",
    )
