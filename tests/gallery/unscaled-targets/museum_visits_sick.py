"""Next-day visitor counts of a group of museums, from the last four weeks."""
import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

WINDOW = 28
MUSEUMS = 6
DAYS = 1600


def visitor_counts(rng):
    t = np.arange(DAYS)
    table = []
    for _ in range(MUSEUMS):
        base = rng.uniform(4500, 7500)
        week = np.array([0.0, 0.75, 0.85, 0.9, 1.05, 1.55, 1.45])[(t + rng.integers(7)) % 7]
        year = 1 + 0.25 * np.sin(2 * np.pi * (t - 120) / 365)
        mood = np.zeros(DAYS)
        for d in range(1, DAYS):
            mood[d] = 0.9 * mood[d - 1] + 0.05 * rng.standard_normal()
        table.append(base * week * year * np.exp(mood))
    return np.round(np.stack(table)).astype(np.float32)


def windows(source, target, days):
    x = np.stack([source[m, d - WINDOW:d] for d in days for m in range(MUSEUMS)])
    y = np.stack([target[m, d] for d in days for m in range(MUSEUMS)])
    return TensorDataset(torch.from_numpy(x)[:, None, :], torch.from_numpy(y)[:, None])


class VisitNet(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(1, width, 7, padding=3), nn.Tanh(),
            nn.Conv1d(width, width, 5, stride=2, padding=2), nn.Tanh(),
            nn.Flatten(),
            nn.Linear(width * WINDOW // 2, 64), nn.Tanh(),
        )
        self.out = nn.Linear(64, 1)

    def forward(self, x):
        return self.out(self.body(x))


def r_squared(model, dataset):
    x, y = dataset.tensors
    model.eval()
    with torch.no_grad():
        residual = ((model(x) - y) ** 2).mean()
    model.train()
    return 1 - (residual / y.var(unbiased=False)).item()


if __name__ == "__main__":
    torch.manual_seed(8)
    visits = visitor_counts(np.random.default_rng(8))
    cutoff = 1300
    scaled = (visits - visits[:, :cutoff].mean()) / visits[:, :cutoff].std()
    train = windows(scaled, visits, range(WINDOW, cutoff))
    test = windows(scaled, visits, range(cutoff, DAYS))

    model = VisitNet()
    loader = DataLoader(train, batch_size=64, shuffle=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    criterion = nn.MSELoss()
    for epoch in range(12):
        losses = []
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1:2d}: loss {np.mean(losses):.4g}  R2 train {r_squared(model, train):.3f}  test {r_squared(model, test):.3f}")
