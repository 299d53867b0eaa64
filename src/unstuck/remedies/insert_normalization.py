"""Normalization put into a network that has none: behind each hidden linear or convolutional layer, in front of its
activation.

    insert_batch_norm(problem).apply(problem)

The new layer hangs on the one that it follows, so that no parameter changes its name: `fc1.weight` stays, and
`fc1.normalized.weight` is trained beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unstuck.errors import UnstuckError
from unstuck.probes.activations import RECTIFIERS, SMOOTH, SQUASHERS
from unstuck.problem import Problem
from unstuck.recipe import OptimizerRecipe
from unstuck.remedies.initialization import follows
from unstuck.remedies.remedy import Remedy
from unstuck.remedies.wider import CONVS, hidden_layers
from unstuck.sandbox import sandbox
from unstuck.trace import Seen, Trace, trace

NORMALIZING = frozenset({"batch_norm", "layer_norm", "group_norm", "instance_norm", "local_response_norm", "rms_norm"})
NAME = "normalized"
OVER = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
"""Batch normalization of a tensor with so many dimensions."""


def insert_batch_norm(problem: Problem) -> Remedy:
    """BatchNorm (Ioffe & Szegedy 2015) behind each hidden layer, in front of its activation."""
    return Remedy(
        "insert-batch-norm",
        "put batch normalization between each hidden layer and its activation",
        "nn.Sequential(nn.Linear(…, width), nn.BatchNorm1d(width), nn.ReLU())  # BatchNorm2d behind a Conv2d",
        lambda p: _inserted(p, _over_batch),
    )


def insert_layer_norm(problem: Problem) -> Remedy:
    """LayerNorm (Ba et al. 2016) likewise; behind a convolution over channels and positions."""
    return Remedy(
        "insert-layer-norm",
        "put layer normalization between each hidden layer and its activation",
        "nn.Sequential(nn.Linear(…, width), nn.LayerNorm(width), nn.ReLU())  # GroupNorm(1, …) behind a Conv2d",
        lambda p: _inserted(p, _over_sample),
    )


def normalizing(problem: Problem) -> tuple[str, ...]:
    """Names of the normalizing functions that the network calls: `batch_norm`, `layer_norm`. One forward pass."""
    return tuple(sorted({call.name for call in _traced(problem).calls if call.name in NORMALIZING}))


def places(problem: Problem) -> dict[str, Tensor]:
    """Hidden layers whose output goes into an activation, by path, with that output. Two forward passes."""
    hidden, seen = {path for path, _ in hidden_layers(problem)}, _traced(problem)
    return {c.path: c.output for c in seen.calls if c.path in hidden and _activated(seen, c)}


def _activated(seen: Trace, call: Seen) -> bool:
    return isinstance(call.output, Tensor) and follows(seen, call) in RECTIFIERS | SMOOTH | SQUASHERS


def _traced(problem: Problem) -> Trace:
    with sandbox(0), torch.no_grad():
        return trace(problem, problem.twin(), problem.data[0])


def _over_batch(layer: nn.Module, output: Tensor) -> nn.Module | None:
    """None behind a linear layer over sequences [N, T, F]: BatchNorm1d would take T for the channels."""
    if not isinstance(layer, CONVS):
        return nn.BatchNorm1d(output.shape[1]) if output.dim() == 2 else None
    return OVER[output.dim()](output.shape[1])


def _over_sample(layer: nn.Module, output: Tensor) -> nn.Module:
    return nn.GroupNorm(1, output.shape[1]) if isinstance(layer, CONVS) else nn.LayerNorm(output.shape[-1])


def _inserted(problem: Problem, made: Callable[[nn.Module, Tensor], nn.Module | None]) -> Problem:
    """Raises UnstuckError where the network has no place for it."""
    model, recipe = problem.twin(), problem.optimizer
    changed = False
    for path, output in places(problem).items():
        layer = model.get_submodule(path)
        norm = made(layer, output)
        if norm is not None:
            layer.add_module(NAME, norm.to(output.device, output.dtype).train(layer.training))
            layer.register_forward_hook(_through)
            recipe = _beside(recipe, path, norm)
            changed = True
    if not changed:
        raise UnstuckError("no linear or convolutional layer leads to an activation: nowhere to put a normalization")
    return replace(problem, model=model, optimizer=recipe)


def _through(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    return getattr(module, NAME)(output)  # type: ignore[no-any-return]


def _beside(recipe: OptimizerRecipe | None, path: str, norm: nn.Module) -> OptimizerRecipe | None:
    """The recipe with the new parameters in the group of the layer they follow."""
    new = tuple(f"{path}.{NAME}.{name}" for name, _ in norm.named_parameters())
    if recipe is None:
        return None
    holds = next((k for k, (_, names) in enumerate(recipe.groups) if any(n.startswith(f"{path}.") for n in names)), 0)
    groups = tuple((o, (*names, *new) if k == holds else names) for k, (o, names) in enumerate(recipe.groups))
    return replace(recipe, groups=groups)
