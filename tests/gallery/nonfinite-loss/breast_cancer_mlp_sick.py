import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler


class LogLoss(nn.Module):
    """Binary cross-entropy with a weight for each class."""

    def __init__(self, positive=1.0, negative=1.0):
        super().__init__()
        self.positive, self.negative = positive, negative

    def forward(self, p, y):
        loss = -(self.positive * y * torch.log(p) + self.negative * (1 - y) * torch.log(1 - p))
        return loss.mean()


torch.manual_seed(0)
x, y = load_breast_cancer(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
scaler = StandardScaler().fit(x_train)
x_train = torch.tensor(scaler.transform(x_train), dtype=torch.float32)
x_test = torch.tensor(scaler.transform(x_test), dtype=torch.float32)
y_train = torch.tensor(y_train, dtype=torch.float32).unsqueeze(1)
y_test = torch.tensor(y_test, dtype=torch.float32).unsqueeze(1)

model = nn.Sequential(
    nn.Linear(30, 32), nn.ReLU(),
    nn.Linear(32, 16), nn.ReLU(),
    nn.Linear(16, 1), nn.Sigmoid(),
)
loss_fn = LogLoss(positive=1.0, negative=1.2)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

for epoch in range(60):
    model.train()
    perm = torch.randperm(len(x_train))
    losses = []
    for idx in perm.split(32):
        optimizer.zero_grad()
        loss = loss_fn(model(x_train[idx]), y_train[idx])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    if epoch % 6 == 5:
        model.eval()
        with torch.no_grad():
            acc = ((model(x_test) > 0.5) == (y_test > 0.5)).float().mean().item()
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}, test accuracy {acc:.3f}")
