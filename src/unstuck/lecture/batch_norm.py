"""Batch normalization on handwritten digits: the layer, how far a batch's mean is off, and networks trained with it.

    model = train(digits(512), size=64, momentum=0.1, seed=0, updates=150)
    accuracy(model, data), accuracy(model, data, size=2)     # by running statistics, and by those of two samples
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unstuck.lecture.digits import CLASSES, PIXELS, Digits

TOGETHER, HIDDEN, RATE = 64, 32, 0.1
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
DRAWS = 2000
MOMENTUM, EPS = 0.1, 1e-5
"""Torch's defaults."""


class BatchNorm(nn.Module):
    """(x − μ) / √(σ² + ε) with μ, σ² of each `size` samples; in evaluation mode the running ones. No scale, no shift.

    The batch may hold several such groups, each normalized for itself: so the statistics get noisier while the gradient
    stays the mean over all samples (ghost batches, Hoffer et al. 2017). With `size` = the batch's it is torch's.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, size: int, momentum: float = MOMENTUM) -> None:
        super().__init__()
        self.size, self.momentum = size, momentum
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[samples, channels] → the same."""
        if not self.training:
            return (x - self.mean).div((self.variance + EPS).sqrt())
        groups = x.unflatten(0, (-1, min(self.size, len(x))))
        mean, variance = groups.mean(1, keepdim=True), groups.var(1, correction=0, keepdim=True)
        self._remember(mean.detach(), variance.detach(), groups.shape[1])
        return torch.flatten((groups - mean) / (variance + EPS).sqrt(), 0, 1)

    def _remember(self, mean: Tensor, variance: Tensor, size: int) -> None:
        """Running statistics move by `momentum`, the variance without its bias, as torch does."""
        self.mean.lerp_(mean.mean((0, 1)), self.momentum)
        self.variance.lerp_(variance.mean((0, 1)) * size / max(size - 1, 1), self.momentum)


def batch_noise(data: Digits, draws: int = DRAWS) -> list[float]:
    """For each of `SIZES` the spread of the batch's mean over the channel's own, of a layer's outputs on digits.

    Batches are drawn with replacement, so that σ/√B holds exactly; root mean square over the channels.
    """
    torch.manual_seed(0)
    values = nn.Linear(PIXELS, HIDDEN)(data.x).detach().double()
    spread, found = values.std(0, correction=0), []
    for size in SIZES:
        means = values[torch.randint(len(values), (draws, size))].mean(1)
        found.append(float(((means.std(0) / spread) ** 2).mean().sqrt()))
    return found


def train(data: Digits, size: int, momentum: float, seed: int, updates: int) -> nn.Sequential:
    """A network trained on batches of 64 whose statistics are taken over `size` samples each."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(PIXELS, HIDDEN), BatchNorm(HIDDEN, size, momentum), nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN), BatchNorm(HIDDEN, size, momentum), nn.ReLU(), nn.Linear(HIDDEN, CLASSES),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    for _ in range(updates):
        chosen = torch.randint(len(data.x), (TOGETHER,))
        optimizer.zero_grad()
        cross_entropy(model(data.x[chosen]), data.y[chosen]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model


def accuracy(model: nn.Sequential, data: Digits, size: int = 0) -> float:
    """On unseen digits, by running statistics, or with `size` by those of each so many samples."""
    whole = len(data.others_x) // max(size, 1) * max(size, 1)
    tested = changed(model, size=size).train(size > 0)
    with torch.no_grad():
        right = tested(data.others_x[:whole]).argmax(1) == data.others_y[:whole]
    return float(right.double().mean())


def changed(model: nn.Sequential, **fields: float) -> nn.Sequential:
    """A copy, with these fields of its BatchNorm layers changed."""
    copied = copy.deepcopy(model)
    for module in copied:
        if isinstance(module, BatchNorm):
            for name, value in fields.items():
                setattr(module, name, value)
    return copied


def recalibrated(model: nn.Sequential, data: Digits) -> nn.Sequential:
    """The network with the statistics of all training samples as its running ones."""
    exact = changed(model, size=len(data.x), momentum=1.0)
    with torch.no_grad():
        exact(data.x)
    return exact
