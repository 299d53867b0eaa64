"""A sound initialization: each layer's weights drawn by the activation that follows it, biases at zero.

    std = √(2 / fan_in)              before ReLU and its kin    (He et al. 2015)
    std = √(2 / (fan_in + fan_out))  before anything else       (Glorot & Bengio 2010)

Recurrent weights are orthogonal (Saxe et al. 2014). Embeddings and loose matrices are drawn anew only where they are
constant or their scale is no sound one: N(0, 1) as PyTorch does, N(0, 0.02²) where a linear layer shares the embedding
(Radford et al. 2019), Glorot for loose ones.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from unstuck.probes.activations import RECTIFIERS, SMOOTH, SQUASHERS
from unstuck.probes.anatomy import LAYERS
from unstuck.problem import Problem
from unstuck.remedies.remedy import Remedy
from unstuck.sandbox import sandbox
from unstuck.trace import Seen, Trace, trace
from unstuck.training import mix_entries

SOUND = (0.1, 5.0)
"""rms·√fan_in of a loose matrix that is left as it is; Glorot's and He's rules give 0.5 to 1.5."""


def reinitialize(problem: Problem) -> Remedy:
    """He or Glorot by the activation that follows; normalization layers back to the identity."""
    squashing = any(c.name in SQUASHERS for c in _calls(problem)) and not any(
        c.name in RECTIFIERS | SMOOTH for c in _calls(problem)
    )
    rule, line = ("Glorot", "xavier_uniform_") if squashing else ("He", "kaiming_normal_")
    return Remedy(
        "reinitialize",
        f"initialize the weights by {rule}'s rule, biases at zero",
        f"{problem.model_name}.apply(lambda m: (nn.init.{line}(m.weight), nn.init.zeros_(m.bias)) "
        "if isinstance(m, (nn.Linear, nn.Conv2d)) else None)",
        _fresh,
    )


def another_start(problem: Problem, seed: int) -> Remedy:
    """The same initialization, drawn again: the entries of every weight tensor in another order."""

    def apply(p: Problem) -> Problem:
        model = p.twin()
        mix_entries(model, seed)
        return replace(p, model=model)

    return Remedy(
        "another-start",
        "begin from other initial weights of the same kind",
        f"torch.manual_seed({seed})  # before the model is made",
        apply,
        on="train",
        variant=f"seed {seed}",
        against="own start",
    )


def _calls(problem: Problem) -> tuple[Seen, ...]:
    with sandbox(0), torch.no_grad():
        return trace(problem, problem.twin(), problem.data[0]).calls


def _fresh(problem: Problem) -> Problem:
    model = problem.twin()
    with sandbox(problem.seed):
        with torch.no_grad():
            seen = trace(problem, problem.twin(), problem.data[0])
        rectified = _rectified(seen)
        tied = _tied(model)
        with torch.no_grad():
            for path, module in model.named_modules():
                _reset(module, path in rectified, tied)
    return replace(problem, model=model)


def _rectified(seen: Trace) -> frozenset[str]:
    """Paths of the modules whose output goes, through no other layer, into a ReLU or one of its kin."""
    return frozenset(c.path for c in seen.calls if c.name in LAYERS and follows(seen, c) in RECTIFIERS | SMOOTH)


def follows(seen: Trace, call: Seen, depth: int = 4) -> str:
    """Name of the nonlinear call that takes what `call` made, perhaps through a normalization or a reshape; or ''."""
    for reader in seen.readers(call):
        if reader.name in RECTIFIERS | SQUASHERS | SMOOTH:
            return reader.name
        if reader.name not in LAYERS and depth:
            found = follows(seen, reader, depth - 1)
            if found:
                return found
    return ""


def _tied(model: nn.Module) -> frozenset[int]:
    """Ids of embedding weights that another layer uses too."""
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    return frozenset(id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding) and id(m.weight) in linear)


def _reset(module: nn.Module, rectified: bool, tied: frozenset[int]) -> None:
    reset = getattr(module, "reset_parameters", None)
    if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
        if id(module.weight) not in tied:
            _draw(module.weight, rectified)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        _embedding(module.weight, id(module.weight) in tied)
    elif isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        for name, parameter in module.named_parameters():
            _recurrent(name, parameter)
    elif isinstance(module, nn.MultiheadAttention):
        module._reset_parameters()
    elif type(module).__module__.startswith("torch.nn") and callable(reset):
        reset()
    else:
        for parameter in module.parameters(recurse=False):
            _loose(parameter)


def _draw(weight: Tensor, rectified: bool) -> None:
    if rectified:
        nn.init.kaiming_normal_(weight, nonlinearity="relu")
    else:
        nn.init.xavier_uniform_(weight)


def _embedding(weight: Tensor, tied: bool) -> None:
    """Anew where it is constant, or larger than usual: many sound networks draw embeddings smaller than N(0, 1)."""
    usual = 0.02 if tied else 1.0
    if _alike(weight) or float(weight.float().square().mean().sqrt()) > (10 if tied else 1.5) * usual:
        nn.init.normal_(weight, std=usual)


def _alike(tensor: Tensor) -> bool:
    return bool((tensor == tensor.flatten()[0]).all())


def _recurrent(name: str, parameter: Tensor) -> None:
    if parameter.dim() < 2:
        nn.init.zeros_(parameter)
    elif "hh" in name:
        for block in parameter.split(parameter.shape[1]):
            nn.init.orthogonal_(block)
    else:
        nn.init.xavier_uniform_(parameter)


def _loose(parameter: Tensor) -> None:
    if parameter.dim() < 2:
        return
    scale = float(parameter.float().square().mean().sqrt()) * math.sqrt(parameter.numel() / max(parameter.shape))
    small = 0 < scale < SOUND[0] and min(parameter.shape) > 1
    if (_alike(parameter) and bool(parameter.any())) or small or scale > SOUND[1]:
        nn.init.xavier_normal_(parameter)
