import gzip

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(9)


def load(split, n):
    root = "/usr/share/datasets/fashion-mnist/" + split
    x = np.frombuffer(gzip.open(root + "-images-idx3-ubyte.gz").read(), np.uint8, offset=16)
    y = np.frombuffer(gzip.open(root + "-labels-idx1-ubyte.gz").read(), np.uint8, offset=8)
    x = x.reshape(-1, 1, 28, 28)[:n].astype(np.float32) / 255
    return torch.from_numpy((x - 0.286) / 0.353), torch.from_numpy(y[:n].astype(np.int64))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(32, 32, 3, padding=1)
        self.fc = nn.Linear(32 * 4, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x))
        # mean over a 2x2 grid of cells; 7 does not divide evenly, so split the axes by hand
        a = x.detach().numpy()
        cells = [[c.mean(axis=(2, 3)) for c in np.array_split(r, 2, axis=3)] for r in np.array_split(a, 2, axis=2)]
        x = torch.from_numpy(np.stack([c for row in cells for c in row], axis=2)).flatten(1)
        return self.fc(x)


x_train, y_train = load("train", 6000)
x_test, y_test = load("t10k", 2000)
net = Net()
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)

for epoch in range(9):
    net.train()
    running = 0.0
    batches = torch.randperm(len(x_train)).split(50)
    for idx in batches:
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x_train[idx]), y_train[idx])
        loss.backward()
        optimizer.step()
        running += loss.item()
    net.eval()
    with torch.no_grad():
        acc = (net(x_test).argmax(1) == y_test).float().mean().item()
    print(f"epoch {epoch + 1}: loss {running / len(batches):.4f}, test accuracy {acc:.4f}")
