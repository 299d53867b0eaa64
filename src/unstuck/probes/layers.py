"""One layer of the network: the size of its weights, of its gradient and of its next step.

The size of the weights is given against what keeps a signal's variance on its way up (He et al. 2015; Glorot & Bengio
2010), the step against the weights it changes. Units that share weights and gradient can never part: a layer also says
how many of its units another one equals.

    {layer.where: layer.step for layer in layers_of(model, names, batches, steps)}      # ‖step‖ / ‖weights‖
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

PLAIN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
"""Modules whose units are the rows of their weights (an embedding's rows are inputs)."""


@dataclass(frozen=True)
class Layer:
    """A module that owns weights of two or more dimensions.

    gain        rms(weights)·√fan_in: √2 keeps the variance through ReLU (He et al. 2015), 1 through tanh (Glorot &
                Bengio 2010), PyTorch's default is 1/√3
    gradient    norm of its gradient, root mean square over batches; `entry`: the same an entry
    step        norm of the next step / norm of the weights, with the optimizer's recorded state at the last point
    identical   share of its units that have weights and gradient of another unit
    """

    path: str
    kind: str
    units: int
    weight: float
    gain: float
    gradient: float
    entry: float
    step: float
    identical: float

    @property
    def where(self) -> str:
        """Path and class, as in a report."""
        return f"{self.path} ({self.kind})" if self.path else self.kind


def layers_of(
    model: nn.Module, names: Mapping[str, Tensor], batches: Sequence[Mapping[str, Tensor]], steps: Mapping[str, Tensor]
) -> list[Layer]:
    """The layers of a model, each parameter counted once, from gradients of several batches and the step to come."""
    found, seen = [], set[int]()
    for path, module in model.named_modules():
        own = {f"{path}.{n}" if path else n: p for n, p in _own(module) if id(p) not in seen}
        own = {n: p for n, p in own.items() if n in names}
        weights = {n: p for n, p in own.items() if p.dim() >= 2}
        if not weights:
            continue
        seen.update(id(p) for p in own.values())
        found.append(_layer(path, module, own, weights, batches, steps))
    return found


def _own(module: nn.Module) -> list[tuple[str, Tensor]]:
    """A module's own parameters; attention's projection counts as part of the attention."""
    return list(module.named_parameters(recurse=isinstance(module, nn.MultiheadAttention)))


def _layer(
    path: str,
    module: nn.Module,
    own: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    batches: Sequence[Mapping[str, Tensor]],
    steps: Mapping[str, Tensor],
) -> Layer:
    size = math.sqrt(sum(p.numel() for p in weights.values()))
    norm = norm_of(weights.values())
    square = [sum(float(b[n].float().square().sum()) for n in own) for b in batches]
    total = math.sqrt(sum(square) / len(square))
    fan = max((p[0].numel() for p in weights.values()), default=1)
    embedding = isinstance(module, (nn.Embedding, nn.EmbeddingBag))
    identical = [_identical(p, batches[0][n]) for n, p in weights.items()] if isinstance(module, PLAIN) else [0.0]
    return Layer(
        path=path,
        kind=type(module).__name__,
        units=max(p.shape[0] for p in weights.values()),
        weight=norm / size,
        gain=norm / size * (1.0 if embedding else math.sqrt(fan)),
        gradient=total,
        entry=total / math.sqrt(sum(p.numel() for p in own.values())),
        step=ratio(norm_of(steps[n] for n in weights if n in steps), norm),
        identical=max(identical),
    )


def _identical(weight: Tensor, grad: Tensor) -> float:
    """Share of rows that equal another row in value and in gradient (to round-off)."""
    if weight.shape[0] < 2:
        return 0.0
    values, grads = weight.detach().flatten(1).double(), grad.flatten(1).double()
    scale, slope = values.abs().max().clamp_min(1e-30), grads.abs().max().clamp_min(1e-30)
    codes = torch.cat([(values / scale * 1e5).round(), (grads / slope * 1e3).round()], dim=1)
    return float(1 - (torch.unique(codes, dim=0).shape[0] - 1) / (weight.shape[0] - 1))


def norm_of(tensors: Iterable[Tensor]) -> float:
    """Euclidean norm of all entries together."""
    return math.sqrt(sum(float(t.detach().float().square().sum()) for t in tensors))


def ratio(above: float, below: float) -> float:
    """above / below; where `below` is 0, infinite, or 0 if `above` is 0 too."""
    return above / below if below > 0 else (float("inf") if above > 0 else 0.0)
