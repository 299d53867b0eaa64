"""The course of the learning rate: held constant, or warmed up within this training."""

from __future__ import annotations

from dataclasses import replace

from unstuck.problem import Problem
from unstuck.remedies.remedy import Remedy

WARM_SHARE = 0.1
"""A warm-up over a tenth of the training: what BERT and GPT-2 to 3 were trained with, and less."""


def constant_schedule(problem: Problem, faded: int = 0) -> Remedy:
    """Every step at the largest rate that the schedule reached, at least the optimizer's own.

    Where the schedule was at that rate for `faded` steps, the effect shows only in a race of half as many more.
    """
    factors = problem.loop.schedule
    level = max(1.0, max(factors, default=1.0))
    lr = problem.optimizer.lr * level if problem.optimizer else 0.0
    return Remedy(
        "constant-schedule",
        f"keep the learning rate at {lr:.2g}",
        f"# leave out scheduler.step(): the learning rate stays {lr:.2g}",
        lambda p: replace(p, loop=replace(p.loop, schedule=(level,) if level != 1.0 else ())),
        steps=min(round(1.5 * faded), len(factors)),
    )


def shorter_warmup(problem: Problem) -> Remedy:
    """A linear warm-up to the optimizer's rate over a tenth of the steps that were seen."""
    steps = max(1, round(WARM_SHARE * max(problem.loop.steps, len(problem.loop.schedule))))
    course = tuple(min(1.0, (i + 1) / steps) for i in range(steps))
    return Remedy(
        "shorter-warmup",
        f"warm up over {steps} steps",
        f"LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / {steps}))",
        lambda p: replace(p, loop=replace(p.loop, schedule=course)),
    )
