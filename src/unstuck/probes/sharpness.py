"""How sharp the place is that a training came to: the steepest curvature, and the loss when the weights are disturbed.

    λmax                          of the Hessian of the mean loss, by Lanczos with a certificate
    rise = E L(θ + ρ‖θ_t‖ u_t) − L(θ)      u_t: a random unit direction for each tensor t of the weights, ρ = 0.05

The second does not change when a layer is scaled and the next one scaled back, as λmax does (Dinh et al. 2017): each
tensor is disturbed by a share of its own length.

    found = measure(problem)
    found.steepest, found.rise, found.rise_error
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import nn

from unstuck.curvature.batches import merged
from unstuck.curvature.eigen import extremes
from unstuck.curvature.measure import measurable
from unstuck.errors import UnstuckError
from unstuck.linalg.moments import of
from unstuck.problem import Problem, load_state, samples_a_batch, spaced
from unstuck.sandbox import reseed, sandbox

SHARE, DRAWS = 0.05, 12
"""ρ, and random directions."""
SAMPLES, PRODUCTS, TOLERANCE = 1024, 40, 0.05


@dataclass(frozen=True)
class Sharpness:
    """The loss on up to 1024 training samples, λmax with its interval (nan, and `why`, where there is no Hessian), and
    by how much the loss rises on average when the weights are disturbed, with its standard error over 12 draws."""

    loss: float
    steepest: float
    low: float
    high: float
    rise: float
    rise_error: float
    samples: int
    why: str = ""


def measure(problem: Problem) -> Sharpness:
    """At the last state. Costs 13 forward passes and up to 40 products over 1024 samples."""
    part, samples = _part(problem)
    loss, rises = _disturbed(part)
    found = of(torch.tensor(rises))
    steepest, why = (math.nan, math.nan, math.nan), ""
    try:
        hessian, _ = measurable(part)
        top = extremes(hessian, "max", TOLERANCE, most=PRODUCTS)
        steepest = (top.values[0], *top.intervals[0])
    except UnstuckError as error:
        why = str(error)
    return Sharpness(loss, *steepest, float(found.mean), float(found.standard_error), samples, why)


def _part(problem: Problem) -> tuple[Problem, int]:
    """The problem with some of its training samples, and how many."""
    part = replace(merged(problem), held_out=())
    size = samples_a_batch(part)
    data = spaced(part.data, max(1, SAMPLES // size))
    return replace(part, data=data), size * len(data)


def _disturbed(problem: Problem) -> tuple[float, list[float]]:
    """The loss where the training was left, and how far it rises in each random direction."""
    model = problem.twin(last=True)
    weights = [(p, p.detach().clone()) for p in model.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(problem.seed)
    with sandbox(0), torch.no_grad():
        before, rises = _loss(problem, model), []
        for _ in range(DRAWS):
            for parameter, weight in weights:
                u = torch.randn(weight.shape, generator=generator).to(weight)
                parameter.copy_(weight + SHARE * weight.norm() / u.norm().clamp_min(1e-12) * u)
            rises.append(_loss(problem, model) - before)
    return before, rises


def _loss(problem: Problem, model: nn.Module) -> float:
    reseed(0)  # the same dropout each time
    state = {name: buffer.clone() for name, buffer in model.named_buffers()}
    values = [float(problem.value(model, batch).mean()) for batch in problem.data]
    load_state(model, state)
    return math.fsum(values) / len(values)
