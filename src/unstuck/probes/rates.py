"""A learning-rate range by trying: short trainings on copies at rates from far below to far above the user's.

From the initial state, the same batches each: what the loss on held-out batches is after `STEPS` steps. `best` is the
rate with the lowest; `stable` the largest rate that neither diverged nor ended above where it began. Where that is: the
higher of the loss before any step and of that after steps too small to matter, which move running statistics all the
same.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from unstuck.errors import NotMeasurable, UnstuckError
from unstuck.problem import Batch, Problem
from unstuck.training import Training

FACTORS = (1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 1e3)
FURTHER = (1e4, 1e5, 1e6)
"""Tried, one after the other, only while the largest rate is the best so far."""
ADAM = (1e-3, 3e-3, 1e-2)
LONGER = 3
STEPS = 60
LONG = 40
"""Trials of so many steps find the rate that also does best in ten times as many; those of 8 to 12 steps one that is
3 to 10 times larger (measured on the gallery's healthy scripts)."""
BUDGET_S = 6.0
FEWEST, PATIENCE = 8, 4
"""Steps at each rate, and times the budget that these may take."""


@dataclass(frozen=True)
class Rates:
    """Losses and scores after `steps` steps at each rate [rates]; `initial` before any. `adam`: (rate, loss) of Adam
    after as many, where the user's optimizer is plain gradient descent; `duel`: (steps, loss of the best plain rate,
    loss of Adam) over more, where Adam was ahead; `norms`:
    of the gradient before each step, at the present rate."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    scores: tuple[float, ...]
    initial: float
    initial_score: float
    steps: int
    present: float
    best: float
    stable: float
    adam: tuple[tuple[float, float], ...] = ()
    duel: tuple[int, float, float] | None = None
    norms: tuple[float, ...] = ()

    def at(self, rate: float) -> float:
        """The loss at the tried rate nearest to `rate`."""
        place = min(range(len(self.rates)), key=lambda i: abs(math.log(self.rates[i] / rate)))
        return self.losses[place]

    @property
    def suggested(self) -> tuple[float, float]:
        """Two rates for a longer training: the shorter the trial, the larger the rate that does best in it."""
        first = self.best if self.steps >= LONG else self.best / 3
        return first, first / 3


def measure(problem: Problem, budget_s: float = BUDGET_S) -> Rates:
    """Up to twenty short trainings, most within `budget_s` seconds.

    Raises UnstuckError without an optimizer, or where a few updates at each rate take many times the budget.
    """
    recipe = problem.optimizer
    if recipe is None or (not problem.loop.stepping and not recipe.groups):
        raise UnstuckError("no optimizer was seen")
    present = recipe.lr
    base = present if present > 0 else 1e-3
    plain = replace(problem, loop=replace(problem.loop, schedule=(), stepping=True))
    steps = _affordable(plain, budget_s)
    check = (problem.held_out or problem.data)[:8]
    start = Training(plain).score(check)
    rates: list[float] = []
    losses: list[float] = []
    scores: list[float] = []
    norms: tuple[float, ...] = ()
    for factor in (*FACTORS, *FURTHER):
        useless = factor > 1 and all(loss > max(start.loss, losses[0]) for loss in losses[-2:])
        if useless or (factor in FURTHER and losses[-1] > min(losses)):
            break
        groups = recipe.scaled(factor) if present > 0 else recipe.with_options(lr=base * factor)
        loss, value, course = _try(replace(plain, optimizer=groups), steps, check)
        norms = course if factor == 1.0 else norms
        rates.append(base * factor)
        losses.append(loss)
        scores.append(value)
    best = rates[min(range(len(rates)), key=losses.__getitem__)]
    still = max(start.loss, losses[0])
    stable = max((r for r, loss in zip(rates, losses, strict=True) if loss <= still), default=float("nan"))
    adam = tuple(
        (rate, _try(replace(plain, optimizer=recipe.using(torch.optim.Adam, lr=rate)), steps, check)[0])
        for rate in (ADAM if recipe.cls is torch.optim.SGD else ())
    )
    duel = _duel(plain, best, min(losses), adam, steps, check)
    return Rates(
        tuple(rates),
        tuple(losses),
        tuple(scores),
        start.loss,
        start.value,
        steps,
        present,
        best,
        stable,
        adam,
        duel,
        norms,
    )


def _duel(
    problem: Problem, best: float, loss: float, adam: Sequence[tuple[float, float]], steps: int, check: Sequence[Batch]
) -> tuple[int, float, float] | None:
    """Plain descent and Adam at the rates that did best, over `LONGER` times the steps; where Adam was ahead."""
    rate, ahead = min(adam, key=lambda pair: pair[1], default=(0.0, math.inf))
    recipe = problem.optimizer
    if recipe is None or ahead >= loss:
        return None
    plain = [recipe.scaled(best / recipe.lr)] if recipe.lr else [recipe.with_options(lr=best)]
    other = [recipe.using(torch.optim.Adam, lr=lr) for lr in (rate, rate / 3)]
    ours, *theirs = (_try(replace(problem, optimizer=r), LONGER * steps, check)[0] for r in plain + other)
    return LONGER * steps, ours, min(theirs)


def _try(problem: Problem, steps: int, check: Sequence[Batch]) -> tuple[float, float, tuple[float, ...]]:
    """Held-out loss and score after a short training, and its gradient norms; an infinite loss where it diverged."""
    run = Training(problem)
    norms: list[float] = []
    if run.optimizer is not None:
        run.optimizer.register_step_pre_hook(lambda optimizer, args, kwargs: norms.append(_norm(optimizer)))
    run.advance(steps)
    result = run.score(check)
    loss = result.loss if math.isfinite(result.loss) and not run.diverged else math.inf
    return loss, result.value, tuple(norms)


def _norm(optimizer: torch.optim.Optimizer) -> float:
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    return float(torch.stack(torch._foreach_norm(grads)).norm()) if grads else 0.0


def _affordable(problem: Problem, budget_s: float) -> int:
    trial = Training(problem)
    trial.advance(1)
    start = time.perf_counter()
    trial.advance(2)
    per_step = (time.perf_counter() - start) / 2
    if FEWEST * per_step * len(FACTORS) > PATIENCE * budget_s:
        raise NotMeasurable(
            f"an update takes {per_step:.2g} s: {len(FACTORS)} rates cannot be tried in {PATIENCE * budget_s:.0f} s"
        )
    return int(max(FEWEST, min(STEPS, budget_s / len(FACTORS) / max(per_step, 1e-6))))
