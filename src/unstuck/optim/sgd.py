"""Gradient descent (Cauchy 1847; on batches, Robbins & Monro 1951).

    w ← w − α (g + λ w)

In the lecture: the arrow against the gradient, as long as the learning rate says.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unstuck.optim.rule import Flags, Hyper, Rule, State, descent, rate


def init(parameter: Tensor, hyper: Hyper, flags: Flags) -> State:
    """Nothing to remember."""
    return {}


def update(
    parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, flags: Flags, step: int
) -> tuple[Tensor, State]:
    """One step; two operations over [lanes, …] and one for the penalty."""
    slope = descent(parameter, gradient, hyper, flags)
    return torch.addcmul(parameter, rate(hyper, parameter), slope, value=-1), state


SGD = Rule(
    "sgd", init, update, {"lr": 1e-3, "weight_decay": 0.0}, frozenset({"maximize"}), torch.optim.SGD, {}
)  # fmt: skip
