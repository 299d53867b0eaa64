import gzip
import struct

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def read_idx(path, limit):
    with gzip.open(path, "rb") as f:
        _, n, rows, cols = struct.unpack(">IIII", f.read(16))
        n = min(n, limit)
        return np.frombuffer(f.read(n * rows * cols), dtype=np.uint8).reshape(n, rows * cols)


class Autoencoder(nn.Module):
    def __init__(self, sizes=(784, 256, 64, 16)):
        super().__init__()
        pairs = list(zip(sizes[:-1], sizes[1:]))
        self.encoder = [nn.Linear(a, b) for a, b in pairs]
        self.decoder = [nn.Linear(b, a) for a, b in reversed(pairs[1:])]
        self.output = nn.Linear(sizes[1], sizes[0])

    def encode(self, x):
        for layer in self.encoder[:-1]:
            x = F.relu(layer(x))
        return self.encoder[-1](x)

    def decode(self, z):
        for layer in self.decoder:
            z = F.relu(layer(z))
        return self.output(z)

    def forward(self, x):
        return self.decode(self.encode(x))


torch.manual_seed(4)
root = "/usr/share/datasets/fashion-mnist/"
train = torch.tensor(read_idx(root + "train-images-idx3-ubyte.gz", 8000) / 255.0, dtype=torch.float32)
test = torch.tensor(read_idx(root + "t10k-images-idx3-ubyte.gz", 1000) / 255.0, dtype=torch.float32)
mean = train.mean(0)
train, test = train - mean, test - mean
print("mean image alone:", round(test.pow(2).mean().item(), 4))

model = Autoencoder()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

for epoch in range(10):
    order = torch.randperm(len(train))
    total = 0.0
    for i in range(0, len(train), 100):
        x = train[order[i:i + 100]]
        loss = F.mse_loss(model(x), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    with torch.no_grad():
        test_loss = F.mse_loss(model(test), test).item()
    print(f"epoch {epoch + 1}: train {total * 100 / len(train):.4f}  test {test_loss:.4f}")
