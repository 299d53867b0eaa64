import gzip

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(17)


class BasicBlock(nn.Module):
    def __init__(self, c_in, c_out, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.short = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.short = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.short(x))


class MiniResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, 2, 1)
        self.stage = nn.Sequential(BasicBlock(12, 12), BasicBlock(12, 24, 2))
        self.fc = nn.Linear(24 * 49, 10)

    def forward(self, x):
        x = self.stage(self.stem(x))
        return self.fc(x.flatten(1))


def load(name, n):
    p = f"/usr/share/datasets/fashion-mnist/{name}"
    x = np.frombuffer(gzip.open(p + "-images-idx3-ubyte.gz").read(), np.uint8, offset=16)
    y = np.frombuffer(gzip.open(p + "-labels-idx1-ubyte.gz").read(), np.uint8, offset=8)
    x = x.reshape(-1, 1, 28, 28)[:n].astype(np.float32)
    return torch.tensor((x - 73.0) / 90.0), torch.tensor(y[:n].astype(np.int64))


x_train, y_train = load("train", 6400)
x_test, y_test = load("t10k", 1000)
model = MiniResNet()
optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, betas=(0.9, 0.999), eps=1e-8)

for epoch in range(4):
    model.train()
    stats = []
    for idx in torch.randperm(len(x_train)).chunk(100):
        logits = model(x_train[idx])
        loss = F.cross_entropy(logits, y_train[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        stats.append(loss.item())
    model.eval()
    with torch.no_grad():
        logits = model(x_test)
        test_loss = F.cross_entropy(logits, y_test).item()
        acc = (logits.argmax(1) == y_test).float().mean().item()
    print(f"epoch {epoch}  train {np.mean(stats):.4f}  test {test_loss:.4f}  accuracy {acc:.3f}")
