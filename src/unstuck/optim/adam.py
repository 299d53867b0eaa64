"""Adam: momentum over RMSProp, both corrected for their start at zero (Kingma & Ba 2015).

    m ← β₁ m + (1 − β₁) g                g with λ w in it
    v ← β₂ v + (1 − β₂) g²
    w ← w − α · m / (1 − β₁ᵗ) / (√(v / (1 − β₂ᵗ)) + ε)

"amsgrad" takes the largest v so far (Reddi, Kale & Kumar 2018).
"""

from __future__ import annotations

import torch
from torch import Tensor

from unstuck.optim.rule import Flags, Hyper, Rule, State, along, descent, rate

NUMBERS = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}


def init(parameter: Tensor, hyper: Hyper, flags: Flags) -> State:
    """The means m and v [lanes, …], and the largest v under "amsgrad"."""
    names = ("mean", "square", "largest") if "amsgrad" in flags else ("mean", "square")
    return {name: torch.zeros_like(parameter) for name in names}


def moved(parameter: Tensor, slope: Tensor, state: State, hyper: Hyper, step: int) -> tuple[Tensor, State]:
    """The step along an adaptive mean of `slope`."""
    now = {
        "mean": state["mean"].lerp(slope, along(1 - hyper["beta1"], slope)),
        "square": state["square"].lerp(slope.square(), along(1 - hyper["beta2"], slope)),
    }
    square = now["square"]
    if "largest" in state:
        square = now["largest"] = torch.maximum(state["largest"], square)
    # √(v / c) + ε = (√v + ε √c) / √c: two passes over memory less
    root = (1 - hyper["beta2"] ** step) ** 0.5
    rates = rate(hyper, parameter, root / (1 - hyper["beta1"] ** step))
    below = square.sqrt().add_(along(hyper["eps"] * root, parameter))
    return torch.addcdiv(parameter, rates * now["mean"], below, value=-1), now


def update(
    parameter: Tensor, gradient: Tensor, state: State, hyper: Hyper, flags: Flags, step: int
) -> tuple[Tensor, State]:
    """One step."""
    return moved(parameter, descent(parameter, gradient, hyper, flags), state, hyper, step)


ADAM = Rule("adam", init, update, NUMBERS, frozenset({"maximize", "amsgrad"}), torch.optim.Adam, {})
