"""Filling in missing pixels: every image and every pixel gets a vector, their products are the brightness."""
import gzip

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)

IMAGES, PIXELS, RANK = 2500, 196, 2


def load():
    with gzip.open("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz") as f:
        raw = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:IMAGES]
    table = F.avg_pool2d(torch.tensor(raw / 255.0), 2).flatten(1)
    return table - table.mean(0)


class Factors(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Embedding(IMAGES, RANK, dtype=torch.float64)
        self.pixel = nn.Embedding(PIXELS, RANK, dtype=torch.float64)
        nn.init.normal_(self.image.weight, std=0.15)
        nn.init.normal_(self.pixel.weight, std=0.15)

    def forward(self):
        return self.image.weight @ self.pixel.weight.T


table = load()
seen = (torch.rand(table.shape) < 0.7).double()
hidden = 1 - seen

model = Factors()
optimizer = torch.optim.SGD(model.parameters(), lr=1.25)

for step in range(1, 301):
    error = (model() - table).square()
    loss = (seen * error).sum() / IMAGES
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 30 == 0:
        score = 1 - (hidden * error).sum() / (hidden * table.square()).sum()
        print(f"step {step}: error per image {loss.item():.4f}, R2 on hidden pixels {score.item():.3f}")
