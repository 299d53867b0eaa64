"""A learning-rate range by trying: short trainings on copies at rates from far below to far above the user's.

From the initial state, the same batches each: what the loss on held-out batches is after `STEPS` steps. `best` is the
rate with the lowest; `stable` the largest rate that neither diverged nor ended above where it began.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from unstuck.errors import UnstuckError
from unstuck.problem import Problem
from unstuck.training import Training

FACTORS = (1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1e3)
STEPS = 60
BUDGET_S = 8.0


@dataclass(frozen=True)
class Rates:
    """Losses and scores after `steps` steps at each rate [rates]; `initial` before any."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    scores: tuple[float, ...]
    initial: float
    initial_score: float
    steps: int
    present: float
    best: float
    stable: float

    def at(self, rate: float) -> float:
        """The loss at the tried rate nearest to `rate`."""
        place = min(range(len(self.rates)), key=lambda i: abs(math.log(self.rates[i] / rate)))
        return self.losses[place]


def measure(problem: Problem, budget_s: float = BUDGET_S) -> Rates:
    """Eleven short trainings within `budget_s` seconds. Raises UnstuckError without an optimizer or a rate."""
    recipe = problem.optimizer
    if recipe is None or (not problem.loop.stepping and not recipe.groups):
        raise UnstuckError("no optimizer was seen")
    present = recipe.lr
    base = present if present > 0 else 1e-3
    plain = replace(problem, loop=replace(problem.loop, schedule=(), stepping=True))
    steps = _affordable(plain, budget_s)
    check = (problem.held_out or problem.data)[:8]
    start = Training(plain).score(check)
    rates, losses, scores = [], [], []
    for factor in FACTORS:
        groups = recipe.scaled(factor) if present > 0 else recipe.with_options(lr=base * factor)
        run = Training(replace(plain, optimizer=groups))
        run.advance(steps)
        result = run.score(check)
        rates.append(base * factor)
        losses.append(result.loss if math.isfinite(result.loss) and not run.diverged else math.inf)
        scores.append(result.value)
    best = rates[min(range(len(rates)), key=losses.__getitem__)]
    stable = max((r for r, loss in zip(rates, losses, strict=True) if loss <= start.loss), default=float("nan"))
    return Rates(tuple(rates), tuple(losses), tuple(scores), start.loss, start.value, steps, present, best, stable)


def _affordable(problem: Problem, budget_s: float) -> int:
    trial = Training(problem)
    trial.advance(1)
    start = time.perf_counter()
    trial.advance(2)
    per_step = (time.perf_counter() - start) / 2
    return int(max(8, min(STEPS, budget_s / len(FACTORS) / max(per_step, 1e-6))))
