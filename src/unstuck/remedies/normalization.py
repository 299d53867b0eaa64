"""Other batch normalization: in train mode, with the default momentum, or GroupNorm in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from unstuck.problem import Problem
from unstuck.remedies.remedy import Remedy

Norm = nn.modules.batchnorm._BatchNorm
MOMENTUM = 0.1
GROUPS = 8
CHANNELS = 4
"""A group has at least so many channels: one of a single value would be normalized to nothing."""


def unfreeze_batchnorm(problem: Problem, paths: Sequence[str]) -> Remedy:
    """These normalization layers train: they normalize by the batch and follow the data."""
    return Remedy(
        "unfreeze-batchnorm",
        "let the normalization layers train with the rest",
        f"{problem.model_name}.train()  # and no .eval() on the BatchNorm layers",
        lambda p: replace(p, loop=replace(p.loop, training={**p.loop.training, **dict.fromkeys(paths, True)})),
    )


def default_momentum(problem: Problem) -> Remedy:
    """Running statistics follow the batches with momentum 0.1, PyTorch's default."""

    def apply(p: Problem) -> Problem:
        model = p.twin()
        for module in model.modules():
            if isinstance(module, Norm):
                module.momentum = MOMENTUM
        return replace(p, model=model)

    return Remedy(
        "default-momentum",
        f"let the running statistics follow the data: momentum {MOMENTUM}",
        f"nn.BatchNorm2d(channels, momentum={MOMENTUM})",
        apply,
    )


def group_norm(problem: Problem) -> Remedy:
    """GroupNorm in the place of every BatchNorm: each sample is normalized by itself (Wu & He 2018)."""

    def apply(p: Problem) -> Problem:
        model = p.twin()
        for path, module in list(model.named_modules()):
            if isinstance(module, Norm):
                owner, _, name = path.rpartition(".")
                setattr(model.get_submodule(owner), name, _grouped(module))
        return replace(p, model=model)

    return Remedy(
        "group-norm",
        "normalize each sample by itself: GroupNorm instead of BatchNorm",
        f"nn.GroupNorm({GROUPS}, channels)  # instead of nn.BatchNorm2d(channels)",
        apply,
    )


def _grouped(norm: nn.Module) -> nn.Module:
    assert isinstance(norm, Norm)
    fitting = [g for g in range(1, GROUPS + 1) if norm.num_features % g == 0 and norm.num_features >= CHANNELS * g]
    new = nn.GroupNorm(max(fitting, default=1), norm.num_features, eps=norm.eps, affine=norm.affine)
    if norm.affine:
        with torch.no_grad():
            new.weight.copy_(norm.weight)
            new.bias.copy_(norm.bias)
    return new.to(norm.weight.device) if norm.affine else new
