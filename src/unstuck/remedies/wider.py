"""A wider copy of the network: hidden layers with more units, each fitted to what arrives at it.

One forward pass of a copy rebuilds every layer in the order of the calls: it takes as many features as arrive and makes
twice as many as before, at least `LEAST`; the last layer keeps its outputs. Where the widths are tied to each other
(attention, a fixed `view`), `COPIES` copies with weights of their own stand side by side and their outputs are added: a
network so many times as wide, of blocks that meet only at the end.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unstuck.errors import UnstuckError
from unstuck.problem import Problem
from unstuck.recipe import OptimizerRecipe
from unstuck.remedies.remedy import Remedy
from unstuck.sandbox import sandbox
from unstuck.training import mix_entries

LEAST = 64
"""Fewest units of a wider fully connected or recurrent layer; a quarter of it for channels of a convolution."""

COPIES = 8

LINEAR, CONVS = (nn.Linear,), (nn.Conv1d, nn.Conv2d, nn.Conv3d)
RECURRENT = (nn.LSTM, nn.GRU, nn.RNN)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
GROWING = (*LINEAR, *CONVS, *RECURRENT)
BOUND = (nn.MultiheadAttention, nn.GroupNorm, nn.RNNCellBase)
"""Layers that tie widths together: a network with one is not widened."""


def widen(problem: Problem) -> Remedy:
    """Hidden layers at least twice as wide; a network of one linear layer gets a hidden layer instead."""
    narrow = hidden_layers(problem)
    if not narrow:
        return Remedy(
            "add-hidden-layer",
            f"give the network a hidden layer of {LEAST} units",
            f"nn.Sequential(nn.Linear(…, {LEAST}), nn.ReLU(), nn.Linear({LEAST}, …)) instead of the single nn.Linear",
            _with_hidden_layer,
            on="train",
        )
    name, module = min(narrow, key=lambda pair: width(pair[1]))
    return Remedy(
        "widen",
        f"widen the hidden layers ({name} has {width(module)} units, now {wider(module)})",
        f"{type(module).__name__}(…, {wider(module)}) at {name}, and likewise the other hidden layers",
        _widened,
        on="train",
    )


def width(module: nn.Module) -> int:
    """Units (features, channels, hidden size) that a layer makes."""
    for name in ("out_features", "out_channels", "hidden_size"):
        if hasattr(module, name):
            return int(getattr(module, name))
    raise UnstuckError(f"{type(module).__name__} has no width")


def wider(module: nn.Module) -> int:
    """The width that `widen` gives this layer."""
    return max(2 * width(module), LEAST // 4 if isinstance(module, CONVS) else LEAST)


def hidden_layers(problem: Problem) -> list[tuple[str, nn.Module]]:
    """Layers with weights in the order they are called, without the last one."""
    return layers(problem)[:-1]


def layers(problem: Problem) -> list[tuple[str, nn.Module]]:
    """Linear, convolutional and recurrent layers with their paths, in the order they are called. One forward pass."""
    model, order = problem.twin(), dict[str, nn.Module]()
    with sandbox(0), torch.no_grad(), ExitStack() as stack:
        for name, module in model.named_modules():
            if isinstance(module, GROWING):
                stack.callback(module.register_forward_pre_hook(lambda m, a, n=name: order.update({n: m})).remove)
        problem.value(model, problem.data[0])
    return list(order.items())


def _widened(problem: Problem) -> Problem:
    try:
        return _with_wider_layers(problem)
    except UnstuckError as tied:
        return _side_by_side(problem, str(tied))


class SideBySide(nn.Module):
    """Copies of one network, their outputs added."""

    def __init__(self, copies: Sequence[nn.Module]) -> None:
        super().__init__()
        self.copies = nn.ModuleList(copies)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The sum of the copies' outputs, divided by the root of their number: the spread of one at the start."""
        return torch.stack([one(*args, **kwargs) for one in self.copies]).sum(0) / math.sqrt(len(self.copies))


def _side_by_side(problem: Problem, why: str) -> Problem:
    """Raises UnstuckError where the loss calls parts of the network, or its output is no tensor."""
    copies = [problem.twin() for _ in range(COPIES)]
    for seed, one in enumerate(copies[1:], start=1):
        mix_entries(one, problem.seed + seed)
    model = SideBySide(copies)
    try:
        with sandbox(0), torch.no_grad():
            problem.value(copy.deepcopy(model), problem.data[0])
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UnstuckError(f"{why}; and copies of the network cannot stand in its place: {error}") from None
    training = {f"copies.{i}.{n}".rstrip("."): f for n, f in problem.loop.training.items() for i in range(COPIES)}
    loop = replace(problem.loop, training={"": True, **training})
    return replace(problem, model=model, last={}, loop=loop, optimizer=_over_all(problem.optimizer, model))


def _with_wider_layers(problem: Problem) -> Problem:
    """Raises UnstuckError where a layer ties widths together, or the wider copy does not run."""
    model = problem.twin()
    if any(isinstance(m, BOUND) for m in model.modules()):
        raise UnstuckError("attention and group normalization tie the widths of layers together")
    last = model.get_submodule(_last(problem))
    with sandbox(problem.seed + 1):
        handles = [
            module.register_forward_pre_hook(lambda m, args, keep=module is last: _fit(m, args[0], keep))
            for module in model.modules()
            if isinstance(module, (*GROWING, *BATCH_NORMS, nn.LayerNorm))
        ]
        try:
            with torch.no_grad():
                problem.value(model, problem.data[0])
        except (RuntimeError, ValueError, IndexError) as error:
            raise UnstuckError(f"the network's widths are tied to each other: {error}") from None
        finally:
            for handle in handles:
                handle.remove()
    return replace(problem, model=model, last={}, optimizer=_over_all(problem.optimizer, model))


def _last(problem: Problem) -> str:
    """Path of the layer that is called last."""
    called = layers(problem)
    if not called:
        raise UnstuckError("the network has no linear, convolutional or recurrent layer")
    return called[-1][0]


def _fit(module: nn.Module, arriving: Tensor, keep: bool) -> None:
    """Rebuild a layer in place for the features that arrive, wider unless `keep`."""
    growing = isinstance(module, GROWING)
    units = 0 if not growing else width(module) if keep else wider(module)
    fresh = _rebuilt(module, arriving, units)
    fresh.train(module.training)
    module.__dict__.update({k: v for k, v in fresh.__dict__.items() if not k.startswith("_forward_pre_hooks")})


def _rebuilt(module: nn.Module, arriving: Tensor, units: int) -> nn.Module:
    device = arriving.device
    if isinstance(module, nn.Linear):
        return nn.Linear(arriving.shape[-1], units, module.bias is not None, device=device)
    if isinstance(module, CONVS):
        if module.groups != 1:
            raise UnstuckError("a grouped convolution ties widths together")
        channel = arriving.shape[-(len(module.kernel_size) + 1)]
        options = {name: getattr(module, name) for name in ("stride", "padding", "dilation", "padding_mode")}
        kernel, bias = module.kernel_size, module.bias is not None
        return type(module)(channel, units, kernel, bias=bias, device=device, **options)  # type: ignore[arg-type]
    if isinstance(module, RECURRENT):
        kept = ("num_layers", "bias", "batch_first", "dropout", "bidirectional")
        return type(module)(arriving.shape[-1], units, device=device, **{n: getattr(module, n) for n in kept})
    if isinstance(module, BATCH_NORMS):
        names = ("eps", "momentum", "affine", "track_running_stats")
        return type(module)(arriving.shape[1], device=device, **{n: getattr(module, n) for n in names})
    assert isinstance(module, nn.LayerNorm)
    return nn.LayerNorm(arriving.shape[-len(module.normalized_shape) :], module.eps, device=device)


def _with_hidden_layer(problem: Problem) -> Problem:
    path = _last(problem)
    model = problem.twin()
    layer = model.get_submodule(path)
    if not isinstance(layer, nn.Linear):
        raise UnstuckError(f"a hidden layer goes before a linear layer, and {path or 'the model'} is none")
    with sandbox(problem.seed + 1):
        device = layer.weight.device
        inner = (
            nn.Linear(layer.in_features, LEAST, device=device),
            nn.ReLU(),
            nn.Linear(LEAST, layer.out_features, device=device),
        )
    stacked = nn.Sequential(*inner)
    if not path:
        return replace(problem, model=stacked, last={}, optimizer=_over_all(problem.optimizer, stacked))
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, stacked)
    return replace(problem, model=model, last={}, optimizer=_over_all(problem.optimizer, model))


def _over_all(recipe: OptimizerRecipe | None, model: nn.Module) -> OptimizerRecipe | None:
    """The recipe with the first group's options over every parameter of the new model."""
    if recipe is None:
        return None
    return replace(recipe, groups=((recipe.groups[0][0], tuple(n for n, _ in model.named_parameters())),), state={})
