"""Gradient descent written out by hand."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, xt, y, yt = train_test_split(torch.tensor(x / 8 - 1, dtype=torch.float32), torch.tensor(y), test_size=0.2, random_state=0)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
lr = 0.1

for epoch in range(20):
    total = 0.0
    for idx in torch.randperm(len(x)).split(32):
        loss = F.cross_entropy(model(x[idx]), y[idx])
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= lr * p.grad
        total += loss.item() * len(idx)
    if epoch % 4 == 3:
        with torch.no_grad():
            accuracy = (model(xt).argmax(1) == yt).float().mean().item()
        print(f"epoch {epoch + 1}: loss {total / len(x):.4f}, accuracy {accuracy:.4f}")
