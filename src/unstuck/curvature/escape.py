"""The way out of a saddle: along the direction of most negative curvature, as far as the loss itself goes down.

    θ + α v,     α = argmin L(θ + α v)  over ±lengths, by the true loss (not by the quadratic model, which has no end)

    away = step_out(hessian, point.direction, point.scan)
    moved(problem, away).model           # past the saddle
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unstuck.curvature.flat import Flat
from unstuck.curvature.measure import measurable
from unstuck.curvature.product import Hessian
from unstuck.curvature.saddle import negative_curvature
from unstuck.curvature.scan import Scan, scan
from unstuck.errors import NotMeasurable
from unstuck.problem import Problem, state_of

REFINED = (0.42, 0.56, 0.75, 1.0, 1.33, 1.78, 2.37)
"""Around the best length so far: a second pass, and further ones while the best of them is the outermost."""
PASSES = 4


@dataclass(frozen=True)
class Escape:
    """A step out. `length` along the unit `direction`; `loss` before and `after`, on the full data."""

    direction: Tensor
    length: float
    loss: float
    after: float


def step_out(hessian: Hessian, direction: Tensor, scan: Scan) -> Escape:
    """The best step along ±`direction`, from its `scan` refined. Seven to 28 forward passes.

    The length is 0 where the loss goes down nowhere.
    """
    length, after = scan.lengths[scan.best], scan.loss + scan.changes[scan.best]
    share = torch.tensor(hessian.data.weights, dtype=torch.float64)
    for _ in range(PASSES if length else 0):
        lengths = [length * factor for factor in REFINED]
        losses = (hessian.losses_at(direction, lengths) @ share).tolist()
        after, length = min((loss, step) for loss, step in zip(losses, lengths, strict=True) if math.isfinite(loss))
        if length not in (lengths[0], lengths[-1]):
            break
    return Escape(direction, length, scan.loss, after)


def moved(problem: Problem, away: Escape) -> Problem:
    """The problem begun past the saddle: its last state, moved by the step."""
    model = problem.twin(last=True)
    flat = Flat(model)
    flat.write(flat.values() + away.length * away.direction.to(flat.device, flat.dtype))
    return replace(problem, model=model, last=state_of(model))


def escape(problem: Problem, seed: int = 0) -> dict[str, Tensor]:
    """The state, for `load_state_dict`, of a problem's model past the saddle at which it stands.

    Some five gradients of the data. Raises NotMeasurable where no direction of negative curvature is found, or the loss
    goes down nowhere along it.

        model.load_state_dict(unstuck.escape(unstuck.Problem(model, criterion, loader)))
    """
    hessian, _ = measurable(problem)
    found = negative_curvature(hessian, seed)
    away = step_out(hessian, found.direction, scan(hessian, found.direction, found.rayleigh)) if found else None
    if away is None or away.length == 0.0:
        raise NotMeasurable("escape: no way down was found by curvature; this is no saddle that could be left so")
    return moved(problem, away).model.state_dict()
