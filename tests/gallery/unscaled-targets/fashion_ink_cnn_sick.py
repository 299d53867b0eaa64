import gzip

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)

with gzip.open("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz") as f:
    pixels = np.frombuffer(f.read(16 + 5000 * 784), np.uint8, offset=16).reshape(-1, 1, 28, 28)

# how much ink does it take to print the picture, and how much of it in the upper half
ink = np.stack([pixels.sum(axis=(1, 2, 3)), pixels[:, :, :14].sum(axis=(1, 2, 3))], axis=1).astype(np.float32)
images = torch.tensor(pixels, dtype=torch.float32) / 255
images = (images - images.mean()) / images.std()
ink = torch.tensor(ink)
train_x, train_y, val_x, val_y = images[:4500], ink[:4500], images[4500:], ink[4500:]


class InkNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.fc1 = nn.Linear(784, 32)
        self.fc2 = nn.Linear(32, 2)

    def forward(self, x):
        x = F.elu(self.conv1(x))
        x = F.elu(self.conv2(x))
        x = torch.tanh(self.fc1(torch.flatten(x, 1)))
        return self.fc2(x)


net = InkNet()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

for epoch in range(10):
    permutation = torch.randperm(len(train_x))
    total = 0.0
    for start in range(0, len(train_x), 50):
        index = permutation[start:start + 50]
        loss = F.mse_loss(net(train_x[index]), train_y[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(index)
    with torch.no_grad():
        r2 = 1 - F.mse_loss(net(val_x), val_y) / (val_y - val_y.mean(0)).pow(2).mean()
    print(f"epoch {epoch} training loss {total / len(train_x):.4f} validation R2 {r2:.3f}")
