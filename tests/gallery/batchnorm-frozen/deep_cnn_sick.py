import gzip
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

DIR = "/usr/share/datasets/fashion-mnist/"


def load(kind, n):
    with gzip.open(DIR + kind + "-images-idx3-ubyte.gz", "rb") as f:
        x = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:n]
    with gzip.open(DIR + kind + "-labels-idx1-ubyte.gz", "rb") as f:
        y = np.frombuffer(f.read(), np.uint8, offset=8)[:n]
    x = torch.tensor(x, dtype=torch.float32) / 255.0
    return F.avg_pool2d((x - 0.286) / 0.35, 2), torch.tensor(y, dtype=torch.long)


class PlainNet(nn.Module):
    """A VGG-like stack of 3x3 convolutions."""

    def __init__(self, depth=14, width=16):
        super().__init__()
        layers = []
        channels = 1
        for i in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
            if i in (3, 7):
                layers.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width * 9, 10)

    def forward(self, x):
        return self.head(self.body(x).flatten(1))


def fix_norm_layers(model):
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eval()


def main():
    torch.manual_seed(7)
    x, y = load("train", 4000)
    xv, yv = load("t10k", 1000)
    model = PlainNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    epochs = 4
    for epoch in range(epochs):
        model.train()
        fix_norm_layers(model)
        perm = torch.randperm(len(x))
        total = 0.0
        for k in range(0, len(x), 50):
            idx = perm[k:k + 50]
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[idx]), y[idx])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(idx)
        model.eval()
        with torch.no_grad():
            out = model(xv)
            acc = (out.argmax(1) == yv).float().mean().item()
        print("epoch %d  loss %.4f  val loss %.4f  val acc %.3f" % (epoch, total / len(x), F.cross_entropy(out, yv).item(), acc))


main()
