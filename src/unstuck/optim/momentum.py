"""Gradient descent with momentum, the heavy ball (Polyak 1964).

    b ← μ b + (1 − τ) (g + λ w)          b = g + λ w at the first step
    w ← w − α b

In the lecture: the next movement is the last one, weakened, plus the step against the gradient; the ball rolls over the
hill after the hollow. τ is torch's `dampening`. Along a constant gradient the step grows to α / (1 − μ).
"""

from __future__ import annotations

import torch
from torch import Tensor

from unstuck.optim.rule import Flags, Hyper, Number, Rule, State, along, descent, rate, some


def init(parameter: Tensor, hyper: Hyper, flags: Flags) -> State:
    """The buffer b [lanes, …]."""
    return {"buffer": torch.zeros_like(parameter)}


def buffered(slope: Tensor, state: State, hyper: Hyper, step: int) -> Tensor:
    """The next b. Where μ = 0 dampening has no part in it, as in torch."""
    if step == 1:
        return slope
    rolled = along(hyper["momentum"], slope) * state["buffer"]
    return rolled + (along(_fresh(hyper), slope) * slope if some(hyper["dampening"]) else slope)


def _fresh(hyper: Hyper) -> Number:
    """The share of the new slope."""
    rolling = torch.as_tensor(hyper["momentum"]) != 0
    return torch.where(rolling, 1 - torch.as_tensor(hyper["dampening"], dtype=torch.float64), 1.0)


def update(
    parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, flags: Flags, step: int
) -> tuple[Tensor, State]:
    """One step."""
    buffer = buffered(descent(parameter, gradient, hyper, flags), state, hyper, step)
    return torch.addcmul(parameter, rate(hyper, parameter), buffer, value=-1), {"buffer": buffer}


MOMENTUM = Rule(
    "momentum",
    init,
    update,
    {"lr": 1e-3, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.0},
    frozenset({"maximize"}),
    torch.optim.SGD,
    {},
)
