"""Places to search for critical points from: near the way a training went, and around it.

    starts(problem, 50)      # [50, n]
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from unstuck.curvature.flat import Flat
from unstuck.curvature.forward import twin_at
from unstuck.errors import BadArgument
from unstuck.problem import Problem

NOISES = 0.05, 3.0
"""The smallest and the largest noise of a start, over the root mean square of the parameters. Of a linear autoencoder
begun near 0, noise from 0.01 to 1 led to 3 kinds of critical points of 42, this to 7 (30 searches each)."""


def starts(problem: Problem, count: int, seed: int = 0) -> Tensor:
    """`count` places [count, n] to search from, float64, near the way the training went and around it. No gradient.

        θ = (1 − t) θ_a + t θ_b + σ s ∘ ξ        t uniform, σ log-uniform in [0.05, 3], ξ standard normal

    θ_a, θ_b: two of the states known (the first, those between, the last). s: root mean square of each parameter tensor
    at the last. Raises BadArgument for `count` < 1.
    """
    if count < 1:
        raise BadArgument(f"starts: `count` must be at least 1, got {count}")
    known = [replace(problem, last=state) for _, state in problem.loop.snapshots]
    flats = [Flat(twin_at(case, last, True)) for case, last in ((problem, False), *((k, True) for k in known))]
    flats.append(Flat(twin_at(problem, True, True)))
    values, scale = [flat.values() for flat in flats], _scale(flats[-1])
    least, most = NOISES
    generator, drawn = torch.Generator().manual_seed(seed), []
    for _ in range(count):
        first, second = torch.randint(len(values), (2,), generator=generator).tolist()
        t, power = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        noise = torch.randn(len(scale), generator=generator, dtype=torch.float64).to(scale.device)
        drawn.append(values[first].lerp(values[second], t) + least * (most / least) ** power * scale * noise)
    return torch.stack(drawn)


def _scale(flat: Flat) -> Tensor:
    """The root mean square of each parameter's tensor [n]; of all of them where one is zero, 1 where all are."""
    means = torch.cat([part.square().mean().sqrt().expand(part.numel()) for part in flat.split(flat.values())])
    whole = float(flat.values().square().mean().sqrt()) or 1.0
    return flat.movable(means.masked_fill(means == 0, whole))
