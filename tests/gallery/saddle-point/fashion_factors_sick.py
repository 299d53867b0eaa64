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


def alternating_least_squares(table, seen, rank, rounds=50):
    pixel = torch.randn(PIXELS, rank, dtype=torch.float64)
    ridge = 1e-9 * torch.eye(rank, dtype=torch.float64)
    for _ in range(rounds):
        gram = torch.einsum("np,pa,pb->nab", seen, pixel, pixel) + ridge
        image = torch.linalg.solve(gram, (seen * table) @ pixel)
        gram = torch.einsum("np,na,nb->pab", seen, image, image) + ridge
        pixel = torch.linalg.solve(gram, (seen * table).T @ image)
    return image, pixel


class Factors(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Embedding(IMAGES, RANK, dtype=torch.float64)
        self.pixel = nn.Embedding(PIXELS, RANK, dtype=torch.float64)

    @torch.no_grad()
    def start_from(self, image, pixel):
        """Take over a fit with fewer factors, spread evenly over all of ours; predictions stay what they were."""
        scale = image.std(0) / 0.5
        turn, _ = torch.linalg.qr(torch.randn(RANK, image.shape[1], dtype=torch.float64))
        self.image.weight.copy_(image / scale @ turn.T)
        self.pixel.weight.copy_(pixel * scale @ turn.T)

    def forward(self):
        return self.image.weight @ self.pixel.weight.T


table = load()
seen = (torch.rand(table.shape) < 0.7).double()
hidden = 1 - seen

model = Factors()
model.start_from(*alternating_least_squares(table, seen, rank=1))
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
