"""Gradient descent with Nesterov's momentum (Nesterov 1983; in this form Sutskever et al. 2013).

    b ← μ b + g + λ w                    b = g + λ w at the first step
    w ← w − α (g + λ w + μ b)

The gradient counts as if it were taken where the momentum is about to carry the weights. It knows no dampening.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unstuck.optim.momentum import init
from unstuck.optim.rule import Flags, Hyper, Rule, State, along, descent, rate


def update(
    parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, flags: Flags, step: int
) -> tuple[Tensor, State]:
    """One step."""
    slope = descent(parameter, gradient, hyper, flags)
    momentum = along(hyper["momentum"], parameter)
    buffer = slope if step == 1 else momentum * state["buffer"] + slope
    return parameter - rate(hyper, parameter) * (slope + momentum * buffer), {"buffer": buffer}


NESTEROV = Rule(
    "nesterov",
    init,
    update,
    {"lr": 1e-3, "momentum": 0.9, "weight_decay": 0.0},
    frozenset({"maximize"}),
    torch.optim.SGD,
    {"nesterov": True},
)
