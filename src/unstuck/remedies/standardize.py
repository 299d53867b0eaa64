"""Inputs and targets on unit scale, and gaps filled: as if the script had prepared its data so.

Inputs are changed where they enter the first layer, by the exact figures of the data. Targets are changed inside the
criterion; the score stays on the original scale, on which the output is then `output · std + mean`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unstuck.probes.data import Entrance, Targets, along
from unstuck.problem import Problem
from unstuck.remedies.remedy import Remedy
from unstuck.remedies.rewrite import rewritten
from unstuck.rewriting import CallKey, Rewrite, operands

CONSTANT = 1e-6
"""A feature whose spread is below this share of its peak is constant: it is centred, not scaled."""

ALIKE = 10.0
"""Features whose peaks lie within this factor of each other (pixels) share one mean and one spread: scaling each by its
own would blow up those that hardly vary."""


def standardize_inputs(problem: Problem, entrances: Sequence[Entrance]) -> Remedy:
    """Subtract the mean and divide by the standard deviation, per feature, or of all where they are alike."""
    rewrites = {}
    for entrance in entrances:
        mean, std = figures(entrance)
        rewrites.update(_at_entrance(entrance, _standardizer(mean, std, entrance.axis)))
    mean, std = figures(entrances[0])
    if bool((mean == mean[0]).all() and (std == std[0]).all()):
        code = f"x = (x - {float(mean[0]):.3g}) / {float(std[0]):.3g}"
    else:
        code = "x = (x - x_train.mean(dim=0)) / x_train.std(dim=0)"
    return Remedy(
        "standardize-inputs",
        "bring every input feature to mean 0 and spread 1 (with the training data's figures)",
        code,
        lambda p: rewritten(p, rewrites),
    )


def impute(problem: Problem, entrances: Sequence[Entrance]) -> Remedy:
    """Put each feature's mean where an input is NaN or infinite (0 in features that hold nothing else)."""
    rewrites: dict[CallKey, Rewrite] = {}
    for entrance in entrances:
        rewrites.update(_at_entrance(entrance, _filler(entrance.mean, entrance.axis)))
    return Remedy(
        "fill-gaps",
        "replace NaN and Inf by the feature's mean over the finite values, before anything else is computed from them",
        "x = torch.where(torch.isfinite(x), x, x_mean)  # x_mean: mean of each feature over its finite values",
        lambda p: rewritten(p, rewrites),
    )


def drop_unlabelled(problem: Problem) -> Remedy:
    """Leave samples whose target is not finite out of the criterion."""
    key, flipped = _criterion_key(problem)

    def finite(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output, target = operands(args, kwargs)
        known = (output if flipped else target).isfinite()
        rest = {k: v for k, v in kwargs.items() if k not in {"input", "target", "other"}}
        return function(output[known], target[known], *args[2:], **rest)

    return Remedy(
        "drop-unlabelled",
        "leave out the samples whose target is NaN or infinite",
        "keep = torch.isfinite(y); loss = criterion(output[keep], y[keep])",
        lambda p: rewritten(p, {key: finite}),
    )


@dataclass(frozen=True)
class StandardizedCriterion:
    """A rewrite of the criterion: compares the output with (target − mean) / std."""

    mean: Tensor
    std: Tensor
    flipped: bool = False

    def __call__(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The criterion on the standardized target."""
        output, target = self._ordered(*operands(args, kwargs))
        small = (target - self._shaped(self.mean, target)) / self._shaped(self.std, target)
        rest = {k: v for k, v in kwargs.items() if k not in {"input", "target", "other"}}
        return function(*self._ordered(output, small), *args[2:], **rest)

    def operands(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """Output and target on the original scale, in the order of the call's arguments."""
        output, target = self._ordered(*operands(args, kwargs))
        large = output * self._shaped(self.std, output) + self._shaped(self.mean, output)
        return self._ordered(large, target)

    def _ordered(self, first: Any, second: Any) -> tuple[Any, Any]:
        return (second, first) if self.flipped else (first, second)

    def _shaped(self, stat: Tensor, like: Tensor) -> Tensor:
        return stat.to(like).reshape(like.shape[1:]) if stat.numel() > 1 else stat.to(like).reshape(())


def standardize_targets(problem: Problem, targets: Targets) -> Remedy:
    """Train towards (target − mean) / std, column by column."""
    key, flipped = _criterion_key(problem)
    change = StandardizedCriterion(targets.mean, _spread(targets.std, targets.mean.abs()), flipped)
    one = targets.mean.numel() == 1
    code = (
        f"y = (y - {float(targets.mean):.3g}) / {float(targets.std):.3g}  # and back for predictions"
        if one
        else "y = (y - y_train.mean(dim=0)) / y_train.std(dim=0)  # and back for predictions"
    )
    return Remedy(
        "standardize-targets",
        "train towards targets of mean 0 and spread 1, and scale predictions back",
        code,
        lambda p: rewritten(p, {key: change}),
    )


def figures(entrance: Entrance) -> tuple[Tensor, Tensor]:
    """Mean and spread to standardize an entrance with, per feature; the same for all where features are alike."""
    mean, std, peak = entrance.mean, entrance.std, entrance.peak
    varied = peak[peak > 0]
    if varied.numel() > 1 and float(varied.quantile(0.9)) <= ALIKE * float(varied.quantile(0.1)):
        total = (std.square().mean() + mean.square().mean() - mean.mean().square()).clamp_min(0).sqrt()
        mean, std = mean.mean().expand_as(mean), total.expand_as(std)
    return mean, _spread(std, peak)


def _spread(std: Tensor, peak: Tensor) -> Tensor:
    return torch.where(std > CONSTANT * peak.clamp_min(1e-30), std, torch.ones_like(std))


def _standardizer(mean: Tensor, std: Tensor, axis: int) -> Callable[[Tensor], Tensor]:
    return lambda x: (x - along(mean, x, axis)) / along(std, x, axis)


def _filler(mean: Tensor, axis: int) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.where(x.isfinite(), x, along(mean, x, axis))


def _at_entrance(entrance: Entrance, change: Callable[[Tensor], Tensor]) -> dict[CallKey, Rewrite]:
    def entering(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        named: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        data, place = named[entrance.argument], entrance.place
        whole = change(data) if place is None else [change(t) if i == place else t for i, t in enumerate(data)]
        named[entrance.argument] = whole
        return function(*(named[i] for i in range(len(args))), **{k: named[k] for k in kwargs})

    return dict.fromkeys(entrance.keys, entering)


def _criterion_key(problem: Problem) -> tuple[CallKey, bool]:
    assert problem.criterion.key is not None
    return problem.criterion.key, problem.criterion.flipped
