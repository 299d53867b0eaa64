"""A small CNN that measures a digit: amount of ink, centre and spread in x and y."""
import argparse

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


def measurements(images):
    grid = torch.arange(8.0) - 3.5
    ink = images.sum((1, 2))
    cx = (images * grid).sum((1, 2)) / ink
    cy = (images * grid[:, None]).sum((1, 2)) / ink
    sx = ((images * grid**2).sum((1, 2)) / ink - cx**2).sqrt()
    sy = ((images * grid[:, None] ** 2).sum((1, 2)) / ink - cy**2).sqrt()
    return torch.stack([ink, cx, cy, sx, sy], dim=1)


class Gauge(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.GELU(),
            nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.GELU(),
            nn.Conv2d(24, 24, 3, padding=1), nn.GELU(),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(384, 64), nn.GELU(), nn.Linear(64, 5))

    def forward(self, x):
        return self.head(self.body(x))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--lr", type=float, default=0.01)
    args = parser.parse_args()

    torch.manual_seed(0)
    images = torch.tensor(load_digits().images, dtype=torch.float32) / 16
    images = images[torch.randperm(len(images))]
    y = measurements(images)
    y = (y - y.mean(0)) / y.std(0)
    x = ((images - images.mean()) / images.std()).unsqueeze(1)
    loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=40, shuffle=True)
    x_val, y_val = x[1400:], y[1400:]

    model = Gauge().bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)
    for epoch in range(1, args.epochs + 1):
        total = 0.0
        for xb, yb in loader:
            out = model(xb.bfloat16())
            loss = F.mse_loss(out.float(), yb)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        scheduler.step()
        if epoch % 3 == 0:
            with torch.no_grad():
                val = F.mse_loss(model(x_val.bfloat16()).float(), y_val).item()
            print(f"epoch {epoch}: train {total / len(loader):.5f} validation {val:.5f}")


if __name__ == "__main__":
    main()
