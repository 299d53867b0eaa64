"""Fashion-MNIST embedding with the neighbourhood component loss."""
import gzip

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def load(split, n):
    base = f"/usr/share/datasets/fashion-mnist/{split}"
    with gzip.open(f"{base}-images-idx3-ubyte.gz") as f:
        x = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:n]
    with gzip.open(f"{base}-labels-idx1-ubyte.gz") as f:
        y = np.frombuffer(f.read(), np.uint8, offset=8)[:n]
    return torch.tensor((x / 255.0 - 0.286) / 0.353, dtype=torch.float32), torch.tensor(y.astype("int64"))


class Embedding(nn.Module):
    def __init__(self, dim=24):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.fc = nn.Linear(32 * 49, dim)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        return self.fc(x.flatten(1))


def pairwise_distance(z):
    difference = z.unsqueeze(0) - z.unsqueeze(1)
    return torch.sqrt((difference ** 2).sum(dim=2))


def neighbour_loss(z, y):
    """Each point picks a neighbour by distance; the loss is -log of the chance that it has the same label."""
    d = pairwise_distance(z)
    itself = torch.eye(len(y), dtype=torch.bool)
    partner = (y.unsqueeze(0) == y.unsqueeze(1)) & ~itself
    log_p = F.log_softmax((-d).masked_fill(itself, -1e9), dim=1)
    chance = torch.logsumexp(log_p.masked_fill(~partner, -1e4), dim=1)
    return -chance[partner.any(dim=1)].mean()


@torch.no_grad()
def nearest_class(model, x, y, x_test, y_test):
    z, z_test = model(x), model(x_test)
    centres = torch.stack([z[y == c].mean(0) for c in range(10)])
    return (torch.cdist(z_test, centres).argmin(1) == y_test).float().mean().item()


def main():
    torch.manual_seed(2)
    x, y = load("train", 8000)
    x_test, y_test = load("t10k", 1500)
    model = Embedding()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(5):
        losses = []
        for idx in torch.randperm(len(x)).split(80):
            optimizer.zero_grad()
            loss = neighbour_loss(model(x[idx]), y[idx])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        accuracy = nearest_class(model, x, y, x_test, y_test)
        print(f"epoch {epoch} first {losses[0]:.4f} mean {np.mean(losses):.4f} nearest-class accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
