import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import load_breast_cancer
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)

X, y = load_breast_cancer(return_X_y=True)
# the measurements are skewed, so take logarithms
X = np.log(X)
rng = np.random.default_rng(0)
order = rng.permutation(len(X))
train, val = order[:450], order[450:]
X = (X - X[train].mean(axis=0)) / X[train].std(axis=0)

X = torch.tensor(X, dtype=torch.float32)
y = torch.tensor(y, dtype=torch.long)
loader = DataLoader(TensorDataset(X[train], y[train]), batch_size=30, shuffle=True)

model = nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 2))
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

for epoch in range(30):
    running = 0.0
    for xb, yb in loader:
        optimizer.zero_grad()
        loss = criterion(model(xb), yb)
        loss.backward()
        optimizer.step()
        running += loss.item()
    if epoch % 5 == 4:
        model.eval()
        with torch.no_grad():
            acc = (model(X[val]).argmax(1) == y[val]).float().mean().item()
        model.train()
        print(f"epoch {epoch + 1} loss {running / len(loader):.4f} val accuracy {acc:.3f}")
