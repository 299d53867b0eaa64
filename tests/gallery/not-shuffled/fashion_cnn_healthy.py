import gzip
import os

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

ROOT = "/usr/share/datasets/fashion-mnist"


def read_images(name, limit):
    with gzip.open(os.path.join(ROOT, name)) as f:
        data = np.frombuffer(f.read(), np.uint8, offset=16)
    return data.reshape(-1, 1, 28, 28)[:limit].astype(np.float32) / 255.0


def read_labels(name, limit):
    with gzip.open(os.path.join(ROOT, name)) as f:
        return np.frombuffer(f.read(), np.uint8, offset=8)[:limit].astype(np.int64)


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.fc1 = nn.Linear(32 * 7 * 7, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc2(x)


def load_first(n):
    images = read_images("train-images-idx3-ubyte.gz", n)
    labels = read_labels("train-labels-idx1-ubyte.gz", n)
    return images, labels


def main():
    torch.manual_seed(0)
    x, y = load_first(6000)
    x = (x - 0.286) / 0.353
    train = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    loader = DataLoader(train, batch_size=32, shuffle=False)

    xt = torch.from_numpy((read_images("t10k-images-idx3-ubyte.gz", 2000) - 0.286) / 0.353)
    yt = torch.from_numpy(read_labels("t10k-labels-idx1-ubyte.gz", 2000))

    model = ConvNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(4):
        model.train()
        total = 0.0
        for xb, yb in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(xb), yb)
            loss.backward()
            optimizer.step()
            total += loss.item()
        model.eval()
        with torch.no_grad():
            accuracy = (model(xt).argmax(1) == yt).float().mean().item()
        print(f"epoch {epoch}: train loss {total / len(loader):.4f}  test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
