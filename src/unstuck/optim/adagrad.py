"""AdaGrad: each weight's step over the root of all its squared gradients so far (Duchi, Hazan & Singer 2011).

    S ← S + g²                           g with λ w in it; S begins at `initial_accumulator_value`
    w ← w − α / (1 + (t − 1) η) · g / (√S + ε)

In the lecture: gentle directions get long steps, steep ones short. As S only grows, every step only shrinks. η is
torch's `lr_decay`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unstuck.optim.rule import Flags, Hyper, Rule, State, along, descent, rate


def init(parameter: Tensor, hyper: Hyper, flags: Flags) -> State:
    """The sum S [lanes, …]."""
    return {"sum": torch.zeros_like(parameter) + along(hyper["initial_accumulator_value"], parameter)}


def update(
    parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, flags: Flags, step: int
) -> tuple[Tensor, State]:
    """One step."""
    slope = descent(parameter, gradient, hyper, flags)
    total = torch.addcmul(state["sum"], slope, slope)
    rates = rate(hyper, parameter, 1 / (1 + (step - 1) * hyper["lr_decay"]))
    below = total.sqrt().add_(along(hyper["eps"], parameter))
    return torch.addcdiv(parameter, rates * slope, below, value=-1), {"sum": total}


ADAGRAD = Rule(
    "adagrad",
    init,
    update,
    {"lr": 1e-2, "lr_decay": 0.0, "weight_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10},
    frozenset({"maximize"}),
    torch.optim.Adagrad,
    {},
)
