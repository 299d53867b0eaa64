"""A picture as a sum of three Gaussian blobs: brightness at (row, column) by a small radial-basis network."""
import gzip
import math

import numpy as np
import torch
from torch import nn


class Blobs(nn.Module):
    def __init__(self, count=3):
        super().__init__()
        self.center = nn.Parameter(torch.empty(count, 2).uniform_(-0.8, 0.8))
        self.log_sharpness = nn.Parameter(torch.full((count, 2), math.log(2.7)))
        self.height = nn.Parameter(torch.full((count,), 0.5))

    def forward(self, point):
        offset = (point[:, None] - self.center) * self.log_sharpness.exp()
        return torch.exp(-offset.square().sum(-1)) @ self.height


def picture(label, number):
    folder = "/usr/share/datasets/fashion-mnist"
    with gzip.open(f"{folder}/train-images-idx3-ubyte.gz") as f:
        images = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(f"{folder}/train-labels-idx1-ubyte.gz") as f:
        labels = np.frombuffer(f.read(), np.uint8, offset=8)
    return torch.tensor(images[labels == label][number] / 255.0, dtype=torch.float32)


def main():
    torch.manual_seed(6)
    trousers = picture(label=1, number=0)
    axis = torch.linspace(-1, 1, 28)
    points = torch.cartesian_prod(axis, axis)
    brightness = trousers.flatten()

    model = Blobs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    criterion = nn.MSELoss()
    for step in range(4001):
        loss = criterion(model(points), brightness)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 500 == 0:
            print(f"step {step}: mse {loss.item():.5f}, R2 {1 - loss.item() / brightness.var().item():.3f}")
    for center in model.center.tolist():
        print("blob at row {:.2f}, column {:.2f}".format(*center))


main()
