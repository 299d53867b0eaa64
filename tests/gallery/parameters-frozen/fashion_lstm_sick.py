import gzip

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

BASE = "/usr/share/datasets/fashion-mnist/"


def load(split, n):
    with gzip.open(f"{BASE}{split}-images-idx3-ubyte.gz") as f:
        x = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 28, 28)[:n]
    with gzip.open(f"{BASE}{split}-labels-idx1-ubyte.gz") as f:
        y = np.frombuffer(f.read(), np.uint8, offset=8)[:n]
    x = torch.tensor((x - 72.9) / 90.0, dtype=torch.float32)
    return x[:, ::2, ::2].contiguous(), torch.tensor(y, dtype=torch.long)


class Encoder(nn.Module):
    def __init__(self, hidden=48):
        super().__init__()
        self.lstm = nn.LSTM(14, hidden, batch_first=True)

    def forward(self, x):
        _, (h, _) = self.lstm(x)
        return h[-1]


class Classifier(nn.Module):
    def __init__(self, encoder, hidden=48, classes=10):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.head(self.encoder(x))


def run(model, optimizer, loader, xv, yv, epochs):
    for epoch in range(epochs):
        model.train()
        losses = []
        for xb, yb in loader:
            loss = F.cross_entropy(model(xb), yb)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            acc = (model(xv).argmax(1) == yv).float().mean().item()
        print(f"epoch {epoch}: loss {np.mean(losses):.4f}, accuracy {acc:.4f}")


def main():
    torch.manual_seed(8)
    x, y = load("train", 8000)
    xv, yv = load("t10k", 2000)
    loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)

    model = Classifier(Encoder())
    for p in model.encoder.parameters():
        p.requires_grad_(False)

    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    run(model, optimizer, loader, xv, yv, epochs=8)


if __name__ == "__main__":
    main()
