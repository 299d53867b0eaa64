"""Two views of a garment, its upper and its lower half, embedded so that their cross-correlation is the identity."""
import gzip

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

PAIRS, HIDDEN, DIM = 3000, 64, 3


def views(split, count):
    with gzip.open(f"/usr/share/datasets/fashion-mnist/{split}-images-idx3-ubyte.gz") as f:
        pixels = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:count]
    small = F.avg_pool2d(torch.tensor(pixels / 255.0), 2).squeeze(1)
    return small[:, :7].flatten(1), small[:, 7:].flatten(1)


class Tower(nn.Module):
    def __init__(self, basis):
        super().__init__()
        self.hidden = nn.Linear(98, HIDDEN)
        self.head = nn.Linear(HIDDEN, DIM)
        # the first version had two dimensions, for plotting; its map, turned by `basis`, is where the wide one starts
        flat_map = nn.Linear(HIDDEN, basis.shape[1])
        with torch.no_grad():
            self.head.weight.copy_(basis @ flat_map.weight)
            self.head.bias.copy_(basis @ flat_map.bias)

    def forward(self, x):
        return self.head(torch.tanh(self.hidden(x)))


class Matcher(nn.Module):
    def __init__(self):
        super().__init__()
        basis, _ = torch.linalg.qr(torch.randn(DIM, 2))
        self.top, self.bottom = Tower(basis), Tower(basis)

    def forward(self, top, bottom):
        return self.top(top).T @ self.bottom(bottom) / len(top)


def distance_to_identity(cross):
    return ((cross - torch.eye(DIM)) ** 2).sum()


top, bottom = views("train", PAIRS)
test_top, test_bottom = views("t10k", 1000)
(top_mean, top_std), (bottom_mean, bottom_std) = [(v.mean(0), v.std(0) + 0.05) for v in (top, bottom)]
top, test_top = (top - top_mean) / top_std, (test_top - top_mean) / top_std
bottom, test_bottom = (bottom - bottom_mean) / bottom_std, (test_bottom - bottom_mean) / bottom_std

model = Matcher()
optimizer = torch.optim.SGD(model.parameters(), lr=0.02)

for step in range(1, 251):
    optimizer.zero_grad()
    loss = distance_to_identity(model(top, bottom))
    loss.backward()
    optimizer.step()
    if step % 25 == 0:
        with torch.no_grad():
            held_out = distance_to_identity(model(test_top, test_bottom))
        print(f"step {step:3d}: loss {loss.item():.4f}, held-out {held_out.item():.4f}")
