import gzip

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def read_images(split, count):
    folder = "/usr/share/datasets/fashion-mnist"
    with gzip.open(f"{folder}/{split}-images-idx3-ubyte.gz") as f:
        images = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 28, 28)[:count]
    with gzip.open(f"{folder}/{split}-labels-idx1-ubyte.gz") as f:
        labels = np.frombuffer(f.read(), np.uint8, offset=8)[:count]
    x = (torch.tensor(images, dtype=torch.float32) / 255 - 0.286) / 0.353
    return x.unsqueeze(1), torch.tensor(labels, dtype=torch.long)


def build():
    model = nn.Sequential(
        nn.Conv2d(1, 12, 5, stride=2, padding=2), nn.Tanh(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.Tanh(),
        nn.Flatten(),
        nn.Linear(24 * 7 * 7, 64), nn.Tanh(),
        nn.Linear(64, 10),
    )
    for layer in list(model)[:-1]:
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(layer.weight, 0.0, 1.0)
            nn.init.zeros_(layer.bias)
    return model


def accuracy(model, x, y):
    model.eval()
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


def main():
    torch.manual_seed(0)
    x, y = read_images("train", 8000)
    xt, yt = read_images("t10k", 2000)
    loader = DataLoader(TensorDataset(x, y), batch_size=50, shuffle=True)
    model = build()
    opt = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for epoch in range(1, 6):
        model.train()
        running = 0.0
        for xb, yb in loader:
            loss = nn.functional.cross_entropy(model(xb), yb)
            opt.zero_grad()
            loss.backward()
            opt.step()
            running += loss.item() * len(xb)
        print(f"[{epoch}] train loss {running / len(x):.4f}  test acc {accuracy(model, xt, yt):.3f}")


main()
