"""Pictures as weighted sums of smooth bumps on a grid: one linear layer from bumps to a hundred garments."""
import gzip

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn

torch.manual_seed(0)

SIZE, GRID, WIDTH, GARMENTS = 28, 20, 0.35, 100

with gzip.open("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz") as f:
    raw = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, SIZE * SIZE)[:GARMENTS]
# one row per pixel position, one column per garment
pixels = torch.tensor(StandardScaler().fit_transform(raw.T / 255.0), dtype=torch.float32)


def square_grid(count):
    axis = torch.linspace(-1, 1, count)
    return torch.cartesian_prod(axis, axis)


bumps = torch.exp(-torch.cdist(square_grid(SIZE), square_grid(GRID)).square() / (2 * WIDTH**2))
features = torch.tensor(StandardScaler().fit_transform(bumps.numpy()), dtype=torch.float32)

model = nn.Linear(GRID * GRID, GARMENTS)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

for step in range(1, 801):
    optimizer.zero_grad()
    loss = (model(features) - pixels).square().mean(0).sum()  # mean over pixels, summed over garments
    loss.backward()
    optimizer.step()
    if step % 80 == 0:
        print(f"step {step}: loss {loss.item():.4f}, R2 {1 - loss.item() / GARMENTS:.3f}")
