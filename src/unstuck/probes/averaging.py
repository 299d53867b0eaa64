"""What less noise in the gradient does to the loss: from where the training stands, on with larger batches.

Two continuations from the last state, with the optimizer, the rate and the number of updates that the script has: one
on batches of its size, one on larger ones. Whatever else holds a loss up (dead units, a saddle, labels that are wrong)
holds it up in both; what noise holds up comes down in the second.

    found = measure(problem)
    found.present, found.averaged, found.sure
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch

from unstuck.errors import NotApplicable, NotMeasurable
from unstuck.problem import Batch, Problem, resumed, samples_a_batch, training_rows
from unstuck.training import Training

LARGEST = 32
"""Batches of 2 to 32 did best of all on CIFAR and ImageNet (Masters & Luschi 2018): one above is not called small."""

TIMES, LEAST = 16, 4
"""The larger batch holds so many times the samples, `LEAST` times where data are few."""

SEEDS, CHECKS, FEWEST, UPDATES = 3, 8, 20, 200
SCORED = 1024
BUDGET_S = 3.0


@dataclass(frozen=True)
class Averaging:
    """Loss on training samples in the second half of `updates` more updates on batches of `batch` and of `larger`
    samples, each for `SEEDS` orders of the data; `before`: where the training was left."""

    batch: int
    larger: int
    updates: int
    before: float
    present: tuple[float, ...]
    averaged: tuple[float, ...]

    @property
    def sure(self) -> bool:
        """True if each continuation on larger batches ended below each of the others: of three and three the most
        extreme of 20 orders (Mann-Whitney, p = 0.05)."""
        return max(self.averaged) < min(self.present)


def measure(problem: Problem, budget_s: float = BUDGET_S) -> Averaging:
    """Six continuations of 20 to 200 updates. Raises NotApplicable where the batches are not small, the data
    cannot be put into larger ones, or no step is made; NotMeasurable where a continuation diverges."""
    size, recipe = samples_a_batch(problem), problem.optimizer
    if size * problem.loop.accumulate > LARGEST or recipe is None or not problem.loop.stepping or not problem.last:
        raise NotApplicable("the batches are not small")
    rows = training_rows(problem)
    if rows is None or len(rows) < 2 * LEAST * size:
        raise NotApplicable("the samples at hand cannot be put into larger batches")
    larger = min(TIMES * size, len(rows) // 2)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(problem.seed))
    known = replace(problem.rows, ordered=False) if problem.rows is not None else None
    own = resumed(replace(problem, rows=known))
    wide = replace(own, data=rows.batches(order, larger))
    check = rows.batches(order[:SCORED], min(SCORED, len(rows)))
    updates = _affordable(own, wide, budget_s)
    return Averaging(
        size,
        larger,
        updates,
        Training(own).score(check).loss,
        tuple(_loss(own, seed, updates, check) for seed in range(SEEDS)),
        tuple(_loss(wide, seed, updates, check) for seed in range(SEEDS)),
    )


def _loss(problem: Problem, seed: int, updates: int, check: tuple[Batch, ...]) -> float:
    run = Training(problem, seed, mix=False)
    losses = []
    for place in range(CHECKS):  # a loss that noise holds up moves about: one look at it would say little
        run.advance(updates // 2 + (place + 1) * (updates - updates // 2) // CHECKS - run.steps)
        losses.append(run.score(check, len(check)).loss)
    loss = math.fsum(losses) / CHECKS
    if run.diverged or not math.isfinite(loss):
        raise NotMeasurable("the training diverges when it goes on")
    return loss


def _affordable(own: Problem, wide: Problem, budget_s: float) -> int:
    """Updates of all six continuations within the budget."""
    each = 0.0
    for case in (own, wide):
        run = Training(case, mix=False)
        run.advance(1)
        began = time.perf_counter()
        run.advance(2)
        each += (time.perf_counter() - began) / 2
    return int(max(FEWEST, min(UPDATES, budget_s / (SEEDS * each))))
