"""Digits with binarized activations (straight-through estimator)."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split


class SignSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * (x.abs() <= 1).to(grad.dtype)


class BinaryNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 128)
        self.bn1 = nn.BatchNorm1d(128)
        self.fc2 = nn.Linear(128, 64)
        self.bn2 = nn.BatchNorm1d(64)
        self.fc3 = nn.Linear(64, 10)

    def forward(self, x):
        x = SignSTE.apply(self.bn1(self.fc1(x)))
        x = SignSTE.apply(self.bn2(self.fc2(x)))
        return self.fc3(x)


torch.manual_seed(0)
x, y = load_digits(return_X_y=True)
x, xt, y, yt = train_test_split(torch.tensor(x / 8 - 1, dtype=torch.float32), torch.tensor(y), test_size=0.2, random_state=0)
model = BinaryNet()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
for epoch in range(15):
    model.train()
    for idx in torch.randperm(len(x)).split(48):
        if len(idx) < 2:
            continue
        loss = F.cross_entropy(model(x[idx]), y[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        print("epoch", epoch, "loss", round(loss.item(), 4), "accuracy", round((model(xt).argmax(1) == yt).float().mean().item(), 4))
