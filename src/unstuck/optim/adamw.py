"""AdamW: Adam with the decay taken off the weights themselves, not put into the gradient (Loshchilov & Hutter 2019).

    w ← (1 − α λ) w,    then Adam's step with the gradient alone

So the decay is not divided by √v: weights with large gradients are held as tightly as the others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unstuck.optim.adam import NUMBERS, init, moved
from unstuck.optim.rule import Flags, Hyper, Rule, State, along


def update(
    parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, flags: Flags, step: int
) -> tuple[Tensor, State]:
    """One step."""
    slope = -gradient if "maximize" in flags else gradient
    kept = along(1 - hyper["lr"] * hyper["weight_decay"], parameter)
    return moved(kept * parameter, slope, state, hyper, step)


ADAMW = Rule(
    "adamw", init, update, NUMBERS | {"weight_decay": 1e-2}, frozenset({"maximize", "amsgrad"}), torch.optim.AdamW, {}
)  # fmt: skip
