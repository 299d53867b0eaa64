"""Other batch normalization: in train mode, with another momentum, exact or frozen statistics, or one that normalizes
each sample by itself in its place.

    group_norm(problem).apply(problem)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from unstuck.errors import UnstuckError
from unstuck.probes.statistics import Norm, norms
from unstuck.problem import Problem, spaced
from unstuck.remedies.remedy import Remedy
from unstuck.sandbox import sandbox

GROUPS = 8
CHANNELS = 4
"""A group has at least so many channels: one of a single value would be normalized to nothing."""


def unfreeze_batchnorm(problem: Problem, paths: Sequence[str]) -> Remedy:
    """These normalization layers train: they normalize by the batch and follow the data."""
    return Remedy(
        "unfreeze-batchnorm",
        "let the normalization layers train with the rest",
        f"{problem.model_name}.train()  # and no .eval() on the BatchNorm layers",
        lambda p: _in_mode(p, paths, True),
    )


def _in_mode(problem: Problem, paths: Sequence[str], training: bool) -> Problem:
    return replace(
        problem, loop=replace(problem.loop, training={**problem.loop.training, **dict.fromkeys(paths, training)})
    )


def other_momentum(momentum: float) -> Remedy:
    """Running statistics follow the batches with this momentum."""

    def apply(p: Problem) -> Problem:
        model = p.twin()
        for norm in norms(model).values():
            norm.momentum = momentum
        return replace(p, model=model)

    return Remedy(
        "batchnorm-momentum",
        f"let the running statistics follow the data: momentum {momentum:g}",
        f"nn.BatchNorm2d(channels, momentum={momentum:g})",
        apply,
    )


AVERAGED = 100
EXACT = "torch.optim.swa_utils.update_bn(train_loader, {})"


def exact_statistics(problem: Problem) -> Remedy:
    """Running statistics averaged over all batches once more, with the weights as they are when training ends."""
    return Remedy(
        "exact-statistics",
        "compute the running statistics anew from the training data, before the model is evaluated",
        f"{EXACT.format(problem.model_name)}  # after training, before {problem.model_name}.eval()",
        _averaged,
        against="as left",
    )


def evaluate_elsewhere(problem: Problem) -> Remedy:
    """No forward pass in training mode but the steps': what was trained, with the statistics of its own batches."""
    name = problem.model_name
    return Remedy(
        "eval-mode-elsewhere",
        "put the model in evaluation mode before every forward pass that is no training step",
        f"{name}.eval()  # before such a pass; {name}.train() after it",
        _averaged,
        against="as left",
    )


def _averaged(problem: Problem) -> Problem:
    return replace(problem, model=averaged(problem, problem.twin()))


def frozen_statistics(problem: Problem) -> Remedy:
    """From here on the layers normalize by exact statistics in training too: no batch has a say."""
    name = problem.model_name

    def apply(p: Problem) -> Problem:
        model = averaged(p, p.twin())
        return _in_mode(replace(p, model=model), tuple(norms(model)), False)

    return Remedy(
        "freeze-statistics",
        "compute the running statistics anew, and train on with the normalization layers in evaluation mode",
        f"{EXACT.format(name)}; [m.eval() for m in {name}.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]"
        f"  # again after every {name}.train()",
        apply,
        against="from the end",
    )


def averaged(problem: Problem, model: nn.Module) -> nn.Module:
    """The model with running statistics that are plain averages over the training batches, as `update_bn` makes them.

    Changes `model`: one forward pass in training mode for each of up to `AVERAGED` batches, which leaves a tenth of one
    batch's noise. Raises UnstuckError where no layer keeps any.
    """
    kept = {path: norm for path, norm in norms(model).items() if norm.running_mean is not None}
    if not kept:
        raise UnstuckError("no normalization layer keeps running statistics")
    flags = {name: module.training for name, module in model.named_modules()}
    momenta = {path: norm.momentum for path, norm in kept.items()}
    for norm in kept.values():
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    with sandbox(problem.seed), torch.no_grad():
        for batch in spaced(problem.data, AVERAGED):
            problem.value(model, tuple(batch))
    for path, norm in kept.items():
        norm.momentum = momenta[path]
    for name, module in model.named_modules():
        module.training = flags[name]
    return model


def group_norm(problem: Problem) -> Remedy:
    """GroupNorm in the place of every BatchNorm: each sample is normalized by itself (Wu & He 2018)."""
    return Remedy(
        "group-norm",
        "normalize each sample by itself: GroupNorm instead of BatchNorm",
        f"nn.GroupNorm({_most(problem)}, channels)  # instead of nn.BatchNorm2d(channels)",
        lambda p: _in_place(p, GROUPS),
    )


def layer_norm(problem: Problem) -> Remedy:
    """One group of all channels in the place of every BatchNorm (Ba et al. 2016): of vectors [N, F] LayerNorm(F)."""
    return Remedy(
        "layer-norm",
        "normalize each sample by itself, over all of its channels: LayerNorm instead of BatchNorm",
        "nn.GroupNorm(1, channels)  # instead of nn.BatchNorm2d(channels); LayerNorm(width) of BatchNorm1d(width)",
        lambda p: _in_place(p, 1),
    )


def _in_place(problem: Problem, groups: int) -> Problem:
    model = problem.twin()
    for path, norm in norms(model).items():
        owner, _, name = path.rpartition(".")
        setattr(model.get_submodule(owner), name, _grouped(norm, groups))
    return replace(problem, model=model)


def _most(problem: Problem) -> int:
    """The groups of the widest layer."""
    return max((groups_of(norm.num_features) for norm in norms(problem.model).values()), default=GROUPS)


def groups_of(channels: int, most: int = GROUPS) -> int:
    """The largest number of groups that divides the channels and leaves each at least `CHANNELS`."""
    return max((g for g in range(1, most + 1) if channels % g == 0 and channels >= CHANNELS * g), default=1)


def _grouped(norm: Norm, groups: int) -> nn.Module:
    new = nn.GroupNorm(groups_of(norm.num_features, groups), norm.num_features, eps=norm.eps, affine=norm.affine)
    if norm.affine:
        with torch.no_grad():
            new.weight.copy_(norm.weight)
            new.bias.copy_(norm.bias)
    return new.to(norm.weight.device) if norm.affine else new
