"""Small networks of many kinds, each with a batch and a loss: the table that contract tests run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    target: Callable[[], Tensor]
    loss: Callable[[Tensor, Tensor], Tensor]

    def __str__(self) -> str:
        return self.name


class LastStep(nn.Module):
    """A recurrent net read at its last step."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.body = kind(4, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1])


class Attentive(nn.Module):
    """One encoder layer over tokens, mean-pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x)).mean(1))


def _classes() -> Tensor:
    return torch.randint(0, 3, (12,))


CASES = (
    Case(
        "mlp",
        lambda: nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)),
        lambda: torch.randn(12, 5),
        _classes,
        F.cross_entropy,
    ),
    Case(
        "cnn with batchnorm and dropout",
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Dropout(0.3),
            nn.Flatten(), nn.Linear(36, 3),
        ),
        lambda: torch.randn(12, 1, 8, 8),
        _classes,
        F.cross_entropy,
    ),
    Case("lstm", lambda: LastStep(nn.LSTM), lambda: torch.randn(12, 7, 4), _classes, F.cross_entropy),
    Case("gru", lambda: LastStep(nn.GRU), lambda: torch.randn(12, 7, 4), _classes, F.cross_entropy),
    Case("transformer", Attentive, lambda: torch.randint(0, 11, (12, 6)), _classes, F.cross_entropy),
    Case(
        "autoencoder",
        lambda: nn.Sequential(nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 6)),
        lambda: torch.randn(12, 6),
        lambda: torch.randn(12, 6),
        F.mse_loss,
    ),
    Case(
        "regression by hand",
        lambda: nn.Linear(4, 1),
        lambda: torch.randn(12, 4),
        lambda: torch.randn(12),
        lambda output, target: ((output.squeeze(1) - target) ** 2).mean(),
    ),
    Case(
        "nll by hand",
        lambda: nn.Sequential(nn.Linear(5, 3), nn.LogSoftmax(1)),
        lambda: torch.randn(12, 5),
        _classes,
        lambda output, target: -output[torch.arange(len(target)), target].mean(),
    ),
)  # fmt: skip
