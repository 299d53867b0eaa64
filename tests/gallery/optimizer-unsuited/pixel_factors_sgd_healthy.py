import gzip

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)

IMAGES = 2500
with gzip.open("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz") as f:
    pixels = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:IMAGES]
grid = F.avg_pool2d(torch.tensor(pixels, dtype=torch.float32), 2).flatten(1)
grid = (grid - grid.mean()) / grid.std()

# one row per observed (image, position, brightness)
image_id = torch.arange(IMAGES).repeat_interleave(196)
pixel_id = torch.arange(196).repeat(IMAGES)
value = grid.flatten()
order = torch.randperm(len(value))
train, test = order[15000:], order[:15000]


class Factors(nn.Module):
    def __init__(self, dim=8):
        super().__init__()
        self.image = nn.Embedding(IMAGES, dim)
        self.pixel = nn.Embedding(196, dim)
        nn.init.normal_(self.image.weight, std=0.1)
        nn.init.normal_(self.pixel.weight, std=0.1)
        self.mlp = nn.Sequential(nn.Linear(2 * dim, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, image, pixel):
        return self.mlp(torch.cat([self.image(image), self.pixel(pixel)], dim=1)).squeeze(1)


model = Factors()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for step in range(1, 2001):
    idx = train[torch.randint(len(train), (512,))]
    loss = F.mse_loss(model(image_id[idx], pixel_id[idx]), value[idx])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 250 == 0:
        with torch.no_grad():
            fit, held_out = (F.mse_loss(model(image_id[i], pixel_id[i]), value[i]).item() for i in (train[:15000], test))
        print(f"step {step}: mse {fit:.4f}, held-out {held_out:.4f}")
