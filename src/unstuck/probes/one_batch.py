"""Can the network learn one batch by heart? On a copy, with the user's optimizer and with Adam.

A network that cannot is broken between input and loss (no gradient, no capacity, too much noise); one that can, and
yet does not get off the ground on all the data, is let down by its data or its step size. Costs up to `STEPS` gradients
of one batch for each of the two; noise of the forward pass (dropout) stays as the user has it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch

from unstuck.errors import UnstuckError
from unstuck.problem import Problem
from unstuck.recipe import OptimizerRecipe
from unstuck.training import Training

STEPS = 120
BUDGET_S = 2.0
ADAM_LR = 3e-3
"""Adam's rate: three times its default (Kingma & Ba 2015), since only one batch is to be learnt."""

BY_HEART = 0.9
"""Score above which a batch counts as learnt by heart."""


@dataclass(frozen=True)
class OneBatch:
    """Loss and score of the batch before, after `steps` steps with the user's optimizer, and with Adam."""

    metric: str
    loss: float
    score: float
    own_loss: float
    own_score: float
    adam_loss: float
    adam_score: float
    steps: int
    samples: int

    @property
    def learnt(self) -> bool:
        """True if one of the two learnt it by heart."""
        return max(self.own_score, self.adam_score) >= BY_HEART


def measure(problem: Problem, budget_s: float = BUDGET_S) -> OneBatch:
    """Two short trainings on the first batch. Raises UnstuckError without an optimizer."""
    if problem.optimizer is None:
        raise UnstuckError("no optimizer was seen")
    batch = problem.data[:1]
    plain = replace(problem, data=batch, loop=replace(problem.loop, schedule=(), accumulate=1, clip=None))
    start = Training(plain).score(batch)
    own = _trained(plain, budget_s / 2)
    adam = _trained(replace(plain, optimizer=_adam(problem.optimizer)), budget_s / 2)
    after, other = own.score(batch), adam.score(batch)
    return OneBatch(
        start.metric,
        start.loss,
        start.value,
        _finite(after.loss),
        _finite(after.value, -math.inf),
        _finite(other.loss),
        _finite(other.value, -math.inf),
        max(own.steps, adam.steps),
        start.samples,
    )


def _adam(recipe: OptimizerRecipe) -> OptimizerRecipe:
    return recipe.using(torch.optim.Adam, lr=ADAM_LR)


def _trained(problem: Problem, budget_s: float) -> Training:
    run, start = Training(problem), time.perf_counter()
    while run.steps < STEPS and not run.diverged and time.perf_counter() - start < budget_s:
        run.advance(10)
    return run


def _finite(value: float, otherwise: float = math.inf) -> float:
    return value if math.isfinite(value) else otherwise
