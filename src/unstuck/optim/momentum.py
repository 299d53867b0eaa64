"""Gradient descent with momentum, the heavy ball (Polyak 1964).

    b ← μ b + (1 − τ) (g + λ w)          b = g + λ w at the first step
    w ← w − α b

In the lecture: the next movement is the last one, weakened, plus the step against the gradient; the ball rolls over the
hill after the hollow. τ is torch's `dampening`. Along a constant gradient the step grows to α / (1 − μ).
"""

from __future__ import annotations

import torch
from torch import Tensor

from unstuck.optim.rule import Flags, Hyper, Rule, State, along, descent


def init(parameter: Tensor, hyper: Hyper, flags: Flags) -> State:
    """The buffer b [lanes, …]."""
    return {"buffer": torch.zeros_like(parameter)}


def buffered(slope: Tensor, state: State, hyper: Hyper, step: int) -> Tensor:
    """The next b. Where μ = 0 dampening has no part in it, as in torch."""
    if step == 1:
        return slope
    fresh = torch.where(hyper["momentum"] == 0, 1.0, 1 - hyper["dampening"])
    return along(hyper["momentum"], slope) * state["buffer"] + along(fresh, slope) * slope


def update(
    parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, flags: Flags, step: int
) -> tuple[Tensor, State]:
    """One step."""
    buffer = buffered(descent(parameter, gradient, hyper, flags), state, hyper, step)
    return torch.addcmul(parameter, along(hyper["lr"], parameter), buffer, value=-1), {"buffer": buffer}


MOMENTUM = Rule(
    "momentum",
    init,
    update,
    {"lr": 1e-3, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.0},
    frozenset({"maximize"}),
    torch.optim.SGD,
    {},
)
