"""What each update rule makes of this network's gradients: how evenly its steps reach the layers, and how they shrink.

Gradients of some batches at one state of the network go to the rules of torch, one after the other, while the weights
stay where they are. Of each rule then

    spread    largest over smallest step / weights, over the layers, of the last update: 1 if one rate suits all of them
    course    length of each update over that of the first: constant for plain descent and Adam but for noise, as 1/√t
              for AdaGrad, whose sum of squares grows, and so for RMSProp until its mean, which begins at 0, is filled:
              at torch's α of 0.99 that takes some hundred updates

    found = measure(problem)
    {rule.name: rule.spread for rule in found.rules}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unstuck.errors import NotMeasurable
from unstuck.probes.gradients import gradient
from unstuck.problem import Problem
from unstuck.sandbox import sandbox

UPDATES = 32
RULES: tuple[tuple[str, type[torch.optim.Optimizer], Mapping[str, float]], ...] = (
    ("sgd", torch.optim.SGD, {}),
    ("momentum", torch.optim.SGD, {"momentum": 0.9}),
    ("adagrad", torch.optim.Adagrad, {}),
    ("rmsprop", torch.optim.RMSprop, {}),
    ("adam", torch.optim.Adam, {}),
)


@dataclass(frozen=True)
class Course:
    """One rule. `layers`: (path, step / weights over the median layer's) of the last update; `lengths` [updates]: of
    the whole step, the first as 1."""

    name: str
    layers: tuple[tuple[str, float], ...]
    lengths: tuple[float, ...]

    @property
    def spread(self) -> float:
        """Largest over smallest relative step, over layers that move; nan of fewer than two."""
        moving = [step for _, step in self.layers if step > 0]
        return max(moving) / min(moving) if len(moving) > 1 else math.nan


@dataclass(frozen=True)
class Steps:
    """What the rules make of the same gradients [updates], at the state where the training was left (or began)."""

    rules: tuple[Course, ...]
    updates: int

    def of(self, name: str) -> Course:
        """The course of one rule."""
        return next(rule for rule in self.rules if rule.name == name)


def measure(problem: Problem, updates: int = UPDATES, last: bool = False) -> Steps:
    """`updates` gradients at the start (`last`: where the training was left), and as many steps of each rule.

    Layers are the weights of two or more dimensions. Raises NotMeasurable where there are none, where a gradient is not
    finite, or where all are 0.
    """
    with sandbox(0):
        model = problem.twin(last=last)
        weights = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad and p.dim() >= 2}
        if not weights:
            raise NotMeasurable("no layer has a weight matrix that is trained")
        gradients = [_of_weights(problem, model, k, weights) for k in range(updates)]
        if not any(bool(gradient.any()) for found in gradients for gradient in found.values()):
            raise NotMeasurable("the gradient is 0 in every layer")
        rules = tuple(_course(name, cls, options, weights, gradients) for name, cls, options in RULES)
    return Steps(rules, updates)


def _of_weights(problem: Problem, model: nn.Module, place: int, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    _, found = gradient(problem, model, problem.data[place % len(problem.data)])
    if not all(bool(torch.isfinite(found[name]).all()) for name in weights):
        raise NotMeasurable("the gradient is not finite")
    return {name: found[name] for name in weights}


def _course(
    name: str, cls: type[torch.optim.Optimizer], options: Mapping[str, float],
    weights: Mapping[str, Tensor], gradients: list[dict[str, Tensor]],
) -> Course:  # fmt: skip
    own = {path: nn.Parameter(torch.zeros_like(weight)) for path, weight in weights.items()}
    optimizer = cls(own.values(), lr=1.0, **options)  # type: ignore[call-arg, arg-type]
    lengths: list[float] = []
    moved: dict[str, float] = {}
    for found in gradients:
        with torch.no_grad():
            for path, parameter in own.items():
                parameter.zero_()  # the weights stay: a step is what it adds to zero
                parameter.grad = found[path]
        optimizer.step()
        moved = {path: float(parameter.detach().norm()) for path, parameter in own.items()}
        lengths.append(math.sqrt(sum(step**2 for step in moved.values())))
    relative = {path: step / max(float(weights[path].norm()), 1e-12) for path, step in moved.items()}
    middle = sorted(relative.values())[len(relative) // 2] or 1.0
    first = lengths[0] or 1.0
    return Course(
        name, tuple((path, step / middle) for path, step in relative.items()), tuple(x / first for x in lengths)
    )
