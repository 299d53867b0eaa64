"""Loss, gradient and Hessian over batches by other means: a fresh copy of the model for every pass, plain autograd.

Shares no code with what it is held against; the seeds are those of the product: batch `i` runs under seed `i`.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]


class Reference:
    """A model in float64 under a loss over batches `(inputs…, target)`, weighed by `weights` (by rows, if left out)."""

    def __init__(
        self, model: nn.Module, loss: Loss, batches: Sequence[tuple], weights: Sequence[float] | None = None
    ) -> None:
        self.model, self.loss = copy.deepcopy(model).double(), loss
        self.batches = [tuple(t.double() if t.is_floating_point() else t for t in batch) for batch in batches]
        rows = sum(len(batch[0]) for batch in batches)
        self.weights = weights or [len(batch[0]) / rows for batch in batches]
        self.theta = torch.cat([p.detach().reshape(-1) for p in trainable(self.model)])

    def value(self, theta: Tensor) -> float:
        """L(θ)."""
        return sum(w * float(self._loss(theta, i)[0].detach()) for i, w in enumerate(self.weights))

    def gradient(self, theta: Tensor) -> Tensor:
        """∇L(θ), one backward pass a batch."""
        total = torch.zeros_like(theta)
        for i, weight in enumerate(self.weights):
            loss, model = self._loss(theta, i)
            loss.backward()
            total += weight * torch.cat([
                (torch.zeros_like(p) if p.grad is None else p.grad.to_dense()).reshape(-1) for p in trainable(model)
            ])  # fmt: skip
        return total

    def difference(self, v: Tensor, step: float = 1e-5) -> Tensor:
        """Central difference of gradients along v."""
        return (self.gradient(self.theta + step * v) - self.gradient(self.theta - step * v)) / (2 * step)

    def hessian(self) -> Tensor:
        """Dense [n, n], row by row through the graph of the gradient."""
        total = torch.zeros(len(self.theta), len(self.theta), dtype=torch.float64)
        for i, weight in enumerate(self.weights):
            loss, model = self._loss(self.theta, i)
            parameters = list(trainable(model))
            grads = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
            entries = torch.cat([g.reshape(-1) for g in grads])
            for k, entry in enumerate(entries):
                if entry.requires_grad:
                    row = torch.autograd.grad(entry, parameters, retain_graph=True, materialize_grads=True)
                    total[k] += weight * torch.cat([r.reshape(-1) for r in row])
        return total

    def _loss(self, theta: Tensor, i: int) -> tuple[Tensor, nn.Module]:
        model = copy.deepcopy(self.model)
        parameters = list(trainable(model))
        with torch.no_grad():
            for p, part in zip(parameters, theta.split([p.numel() for p in parameters]), strict=True):
                p.copy_(part.reshape(p.shape))
        *inputs, target = self.batches[i]
        random.seed(i), np.random.seed(i), torch.manual_seed(i)
        return self.loss(model(*inputs), target), model


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def unit(size: int, seed: int = 0) -> Tensor:
    """A random direction of length one, float64."""
    v = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return v / v.norm()


def apart(found: Tensor, expected: Tensor) -> float:
    """‖found − expected‖ / ‖expected‖."""
    return float((found.double() - expected).norm() / expected.norm())


def blobs(rows: int, columns: int, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs [rows, columns] and class indices."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator), torch.randint(0, classes, (rows,), generator=generator)
