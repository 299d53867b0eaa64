import gzip

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset


def fashion(split, n):
    root = "/usr/share/datasets/fashion-mnist/" + split
    with gzip.open(root + "-images-idx3-ubyte.gz") as f:
        x = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:n]
    with gzip.open(root + "-labels-idx1-ubyte.gz") as f:
        y = np.frombuffer(f.read(), np.uint8, offset=8)[:n]
    return TensorDataset(torch.tensor(x / 255 * 2 - 1, dtype=torch.float32), torch.tensor(y, dtype=torch.long))


class CompactNet(nn.Module):
    def __init__(self, embedding=12):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.embed = nn.Linear(16 * 49, embedding)
        self.out = nn.Linear(embedding, 10)

    def forward(self, x):
        x = F.leaky_relu(self.conv1(x))
        x = F.leaky_relu(self.conv2(x))
        z = self.embed(x.flatten(1))
        return self.out(z)


torch.manual_seed(6)
train = DataLoader(fashion("train", 8000), batch_size=64, shuffle=True)
test = DataLoader(fashion("t10k", 2000), batch_size=500)
model = CompactNet()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

for epoch in range(8):
    model.train()
    total, right = 0.0, 0
    for x, y in train:
        out = model(x)
        loss = F.cross_entropy(out, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(y)
        right += (out.argmax(1) == y).sum().item()
    model.eval()
    with torch.no_grad():
        test_right = sum((model(x).argmax(1) == y).sum().item() for x, y in test)
    print(f"epoch {epoch}: loss {total / 8000:.3f}  train accuracy {right / 8000:.3f}  test accuracy {test_right / 2000:.3f}")
