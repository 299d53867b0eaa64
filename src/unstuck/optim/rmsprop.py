"""RMSProp: each weight's step over the root of a forgetful mean of its squared gradients (Hinton 2012, lecture 6e).

    S ← β₂ S + (1 − β₂) g²               g with λ w in it; β₂ is torch's `alpha`
    w ← w − α g / (√S + ε)

This is the lecture's form, where ε = 1e-8: what was long ago is forgotten, so that the step can grow again, and in one
burst where small gradients have piled up. "centered" takes the variance in place of S (Graves 2013); with momentum

    b ← μ b + g / (√S + ε),    w ← w − α b
"""

from __future__ import annotations

import torch
from torch import Tensor

from unstuck.optim.rule import Flags, Hyper, Rule, State, along, descent, rate, some


def init(parameter: Tensor, hyper: Hyper, flags: Flags) -> State:
    """The mean square S [lanes, …]; the mean gradient under "centered"; b where a lane has momentum."""
    names = ["square", *(["mean"] if "centered" in flags else [])]
    names += ["buffer"] if some(hyper["momentum"]) else []
    return {name: torch.zeros_like(parameter) for name in names}


def update(
    parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, flags: Flags, step: int
) -> tuple[Tensor, State]:
    """One step."""
    slope = descent(parameter, gradient, hyper, flags)
    take = along(1 - hyper["alpha"], parameter)
    now = {"square": state["square"].lerp(slope.square(), take)}
    spread = now["square"]
    if "mean" in state:
        now["mean"] = state["mean"].lerp(slope, take)
        spread = spread - now["mean"].square()
    below = spread.sqrt().add_(along(hyper["eps"], parameter))
    if "buffer" not in state:
        return torch.addcdiv(parameter, rate(hyper, parameter) * slope, below, value=-1), now
    now["buffer"] = along(hyper["momentum"], parameter) * state["buffer"] + slope / below
    return torch.addcmul(parameter, rate(hyper, parameter), now["buffer"], value=-1), now


RMSPROP = Rule(
    "rmsprop",
    init,
    update,
    {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0},
    frozenset({"maximize", "centered"}),
    torch.optim.RMSprop,
    {},
)
