"""How strong is the wine? Alcohol from the other twelve measurements, with a loss that outliers cannot pull."""
import numpy as np
import torch
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler
from torch import nn


class WelschLoss(nn.Module):
    """1 - exp(-error² / 2 scale²): a square near zero, at most 1 far away."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, prediction, target):
        return (1 - torch.exp(-((prediction - target) ** 2) / (2 * self.scale**2))).mean()


def load(seed=0):
    table = load_wine().data
    table = table[np.random.default_rng(seed).permutation(len(table))]
    alcohol, rest = table[:, 0], table[:, 1:]
    x = torch.tensor(StandardScaler().fit_transform(rest), dtype=torch.float32)
    y = torch.tensor(alcohol / alcohol.max(), dtype=torch.float32)  # 0.74 to 1
    return x[:140], y[:140], x[140:], y[140:]


def train(model, x, y, criterion, epochs=1200, batch_size=28):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(1, epochs + 1):
        total = 0.0
        for batch in torch.randperm(len(x)).split(batch_size):
            loss = criterion(model(x[batch]).squeeze(1), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        if epoch % 100 == 0:
            yield epoch, total / len(x)


def main():
    torch.manual_seed(0)
    x, y, test_x, test_y = load()
    model = nn.Sequential(nn.Linear(12, 32), nn.SiLU(), nn.Linear(32, 16), nn.SiLU(), nn.Linear(16, 1))
    criterion = WelschLoss(scale=0.05)  # five percent, about what the measurements can tell
    for epoch, loss in train(model, x, y, criterion):
        with torch.no_grad():
            error = (model(test_x).squeeze(1) - test_y).abs().median().item()
        print(f"epoch {epoch}: loss {loss:.4f}, median test error {error:.4f}")


main()
