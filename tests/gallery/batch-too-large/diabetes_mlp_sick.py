import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import load_diabetes


def standardise(a, reference):
    return (a - reference.mean(axis=0)) / reference.std(axis=0)


def batches(x, y, size, rng):
    order = rng.permutation(len(x))
    for start in range(0, len(x), size):
        take = order[start:start + size]
        yield x[take], y[take]


class Regressor(nn.Module):
    def __init__(self):
        super().__init__()
        self.l1 = nn.Linear(10, 40)
        self.l2 = nn.Linear(40, 20)
        self.l3 = nn.Linear(20, 1)

    def forward(self, x):
        x = torch.sigmoid(self.l1(x)) * 2 - 1
        x = nn.functional.silu(self.l2(x))
        return self.l3(x).squeeze(-1)


def train(model, x, y, epochs, batch_size, seed):
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    history = []
    for _ in range(epochs):
        for xb, yb in batches(x, y, batch_size, rng):
            optimizer.zero_grad()
            loss = ((model(xb) - yb) ** 2).mean()
            loss.backward()
            optimizer.step()
        history.append(loss.item())
    return history


torch.manual_seed(2)
x, y = load_diabetes(return_X_y=True, scaled=False)
order = np.random.default_rng(2).permutation(len(y))
fit, held = order[:352], order[352:]
x, y = standardise(x, x[fit]).astype(np.float32), standardise(y, y[fit]).astype(np.float32)
x, y = torch.from_numpy(x), torch.from_numpy(y)

model = Regressor()
history = train(model, x[fit], y[fit], epochs=60, batch_size=352, seed=2)
for epoch in range(9, len(history), 10):
    print(f"epoch {epoch + 1}: {history[epoch]:.4f}")
with torch.no_grad():
    for name, rows in (("training", fit), ("held-out", held)):
        r2 = 1 - ((model(x[rows]) - y[rows]) ** 2).mean() / y[rows].var()
        print(f"{name} R2 {r2.item():.3f}")
