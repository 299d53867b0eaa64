"""Learning-rate schedules: factors of the first rate, per lane, each as its `torch.optim.lr_scheduler` counterpart.

    cosine(step, total=torch.tensor([100, 200]))          # [lanes], float64; `step` is 0 at the first update
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def constant(step: int, lanes: int) -> Tensor:
    """1 [lanes]."""
    return torch.ones(lanes, dtype=torch.float64)


def stepwise(step: int, every: Tensor, factor: Tensor) -> Tensor:
    """factor^⌊t / every⌋ (StepLR)."""
    return factor.double() ** torch.div(step, every, rounding_mode="floor")


def exponential(step: int, factor: Tensor) -> Tensor:
    """factorᵗ (ExponentialLR)."""
    return factor.double() ** step


def cosine(step: int, total: Tensor, least: float = 0.0) -> Tensor:
    """least + (1 − least) (1 + cos(π t / total)) / 2 (CosineAnnealingLR, Loshchilov & Hutter 2017)."""
    return least + (1 - least) * (1 + torch.cos(math.pi * step / total.double())) / 2


def warmup(step: int, over: Tensor, first: float = 1 / 3) -> Tensor:
    """first + (1 − first) · min(t / over, 1) (LinearLR): the first steps small, while the gradients are still wild."""
    return first + (1 - first) * (step / over.double()).clamp(max=1.0)
