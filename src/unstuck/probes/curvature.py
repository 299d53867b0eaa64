"""Where the training was left: what kind of point, how steep its steepest direction, where the way down lies.

Two figures beside the verdict of `curvature.point`:

    sharpness   lr · λmax / 2(1 + β)      plain descent with momentum β is stable below 1 along the steepest direction
                                          (Cohen et al. 2021)
    flat_left   Σ_flat w/θ  /  Σ w/θ      share of the decrease still promised (gᵀH⁻¹g / 2) that lies along directions
                                          `FLATTER` times flatter than the steepest; θ, w the Gauss quadrature of
                                          Lanczos started at the gradient
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch

from unstuck.curvature.batches import merged
from unstuck.curvature.escape import Escape, step_out
from unstuck.curvature.point import Point, checked_hessian, classify
from unstuck.errors import NotApplicable
from unstuck.linalg.lanczos import lanczos
from unstuck.probes.gradients import gradient
from unstuck.problem import Problem, samples_a_batch, training_rows

FLATTER = 100.0
"""Orders of magnitude: directions so much flatter than the steepest need as many more steps."""

GRADIENTS, LEAST = 150, 256
"""What a verdict costs, in gradients over the data it is about; and samples it is about at least."""

PRODUCTS = 30
BUDGET_S = 8.0


@dataclass(frozen=True)
class Curvature:
    """The point, the step against the steepest direction (NaN for adaptive optimizers), the share of the decrease left
    that lies along flat directions (NaN where the gradient promises none), and the step out, where there is one."""

    point: Point
    sharpness: float
    flat_left: float
    left: float
    away: Escape | None


def measure(problem: Problem, budget_s: float = BUDGET_S) -> Curvature:
    """Classify the last state within `budget_s` seconds. Raises NotApplicable for a training without steps,
    NotMeasurable where the loss has no Hessian."""
    if problem.optimizer is None or not problem.last:
        raise NotApplicable("no steps were made")
    began = time.perf_counter()
    problem = _affordable(merged(problem), budget_s)
    point = classify(problem, budget_s=0.7 * budget_s)
    left = max(budget_s - (time.perf_counter() - began), 0.5)
    flat_left, promised = _left(problem, point, left)
    return Curvature(point, sharpness(problem, point.ends.most.low), flat_left, promised, _away(problem, point))


def _affordable(problem: Problem, budget_s: float) -> Problem:
    """The problem with so many of its samples that `GRADIENTS` gradients over them fit the budget."""
    rows, began = training_rows(problem), time.perf_counter()
    gradient(problem, problem.twin(last=True), problem.data[0])
    each = (time.perf_counter() - began) / samples_a_batch(problem)
    count = max(int(budget_s / (GRADIENTS * each)), LEAST)
    if rows is None or count >= len(rows):
        return problem
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(problem.seed))[:count]
    return replace(problem, data=rows.batches(order, min(samples_a_batch(problem), LEAST)), held_out=())


def sharpness(problem: Problem, steepest: float) -> float:
    """lr·λmax / 2(1 + β) of plain descent; NaN for optimizers that scale their steps themselves."""
    recipe = problem.optimizer
    if recipe is None or recipe.cls is not torch.optim.SGD:
        return math.nan
    options = recipe.groups[0][0]
    factor = problem.loop.schedule[-1] if problem.loop.schedule else 1.0
    return float(recipe.lr * factor * steepest / (2 * (1 + float(options.get("momentum", 0.0)))))


def _left(problem: Problem, point: Point, budget_s: float) -> tuple[float, float]:
    """(share along flat directions, all) of gᵀH⁻¹g / 2 over the directions that bend up."""
    hessian, _ = checked_hessian(problem, True)
    gradient = hessian.slopes().gradient
    norm, deadline = float(gradient.norm()), time.perf_counter() + budget_s
    if norm == 0.0:
        return math.nan, 0.0
    ritz = lanczos(hessian, gradient, lambda r: time.perf_counter() > deadline, min(PRODUCTS, hessian.size))
    values, weights = ritz.values, ritz.weights * norm**2
    bends = values > 1e-7 * ritz.scale
    share = weights[bends] / (2 * values[bends])
    total = float(share.sum())
    flat = float(share[values[bends] < point.ends.most.low / FLATTER].sum())
    return (flat / total if total else math.nan), total


def _away(problem: Problem, point: Point) -> Escape | None:
    if point.ends.least.high >= 0 or point.verdict not in {"saddle", "maximum"}:
        return None
    hessian, _ = checked_hessian(problem, True)
    found = step_out(hessian, point.direction, point.scan)
    return found if found.length else None
