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
from torch import Tensor

from unstuck.errors import NotApplicable, NotMeasurable
from unstuck.problem import Batch, Problem, resumed, samples_a_batch, training_rows
from unstuck.rows import Rows
from unstuck.training import Training

LARGEST = 32
"""Batches of 2 to 32 did best of all on CIFAR and ImageNet (Masters & Luschi 2018): one above is not called small."""

TIMES = (16, 8, 4)
"""The larger batch holds so many times the samples: the most that data and time allow."""

SEEDS, CHECKS, FEWEST, UPDATES = 3, 8, 20, 200
LEAST_SCORED, SCORED, SCORING = 64, 1024, 1 / 3
"""Samples that every look at the loss rests on: as many as can be scored in this part of the budget."""

BUDGET_S, OVER = 3.0, 2
"""Seconds; up to `OVER` times as many where the fewest updates with the least of the larger batches need them."""


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
    cannot be put into larger ones, or no step is made; NotMeasurable where a continuation diverges, or where an update
    takes too long to make that many."""
    size, recipe = samples_a_batch(problem), problem.optimizer
    if size * problem.loop.accumulate > LARGEST or recipe is None or not problem.loop.stepping or not problem.last:
        raise NotApplicable("the batches are not small")
    rows = training_rows(problem)
    if rows is None or len(rows) < 2 * min(TIMES) * size:
        raise NotApplicable("the samples at hand cannot be put into larger batches")
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(problem.seed))
    known = replace(problem.rows, ordered=False) if problem.rows is not None else None
    own = resumed(replace(problem, rows=known))
    times, updates = _affordable(own, rows, order, budget_s)
    wide = replace(own, data=rows.batches(order, times * size))
    check = _scored(own, rows, order, SCORING * budget_s)
    return Averaging(
        size,
        times * size,
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


def _affordable(own: Problem, rows: Rows, order: Tensor, budget_s: float) -> tuple[int, int]:
    """How many times the batch, and updates of each of the six continuations, within the budget.

    The time of an update is a line in the size of its batch, drawn through the script's and the least of the larger.
    """
    size = samples_a_batch(own)
    one = _update_s(own)
    slope = max(0.0, _update_s(replace(own, data=rows.batches(order, min(TIMES) * size))) - one) / (min(TIMES) - 1)
    pair = {times: 2 * one + slope * (times - 1) for times in TIMES if 2 * times * size <= len(rows)}
    fitting = [times for times, seconds in pair.items() if FEWEST * SEEDS * seconds <= budget_s]
    times = max(fitting, default=min(pair))
    if FEWEST * SEEDS * pair[times] > OVER * budget_s:
        raise NotMeasurable(f"an update on {times} batches at once takes {pair[times] - one:.2g} s")
    return times, int(max(FEWEST, min(UPDATES, budget_s / (SEEDS * pair[times]))))


def _update_s(problem: Problem) -> float:
    run = Training(problem, mix=False)
    run.advance(1)
    began = time.perf_counter()
    run.advance(2)
    return (time.perf_counter() - began) / 2


def _scored(own: Problem, rows: Rows, order: Tensor, seconds: float) -> tuple[Batch, ...]:
    """The samples that every look at the loss rests on, as one batch."""
    trial = rows.batches(order[:LEAST_SCORED], min(LEAST_SCORED, len(rows)))
    run = Training(own)
    run.score(trial, 1)
    began = time.perf_counter()
    run.score(trial, 1)
    looks = seconds / max(time.perf_counter() - began, 1e-9) / (1 + 2 * SEEDS * CHECKS)
    count = min(SCORED, len(rows), max(1, int(looks)) * LEAST_SCORED)
    return rows.batches(order[:count], count)
