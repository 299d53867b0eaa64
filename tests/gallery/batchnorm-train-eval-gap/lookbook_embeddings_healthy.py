"""Fashion-MNIST classifier that also keeps a 2-D map of a few garments, one per epoch."""
import argparse
import gzip
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn

DATA = Path("/usr/share/datasets/fashion-mnist")


def load(split, count):
    with gzip.open(DATA / f"{split}-images-idx3-ubyte.gz") as f:
        images = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 28, 28)[:count]
    with gzip.open(DATA / f"{split}-labels-idx1-ubyte.gz") as f:
        labels = np.frombuffer(f.read(), np.uint8, offset=8)[:count]
    return torch.tensor(images).unsqueeze(1), torch.tensor(labels).long()


def normalize(images):
    return (images.float() / 255 - 0.2860) / 0.3530


class Net(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        )
        self.head = nn.Linear(8 * width, 10)

    def forward(self, x):
        return self.head(self.encoder(x))


def embedding_map(model, garments):
    model.eval()
    with torch.no_grad():
        codes = torch.cat([model.encoder(part.float()) for part in garments.split(20)])
    codes = codes - codes.mean(0)
    _, s, v = torch.linalg.svd(codes, full_matrices=False)
    return codes @ v[:2].T, (s[:2].pow(2).sum() / s.pow(2).sum()).item()


def accuracy(model, x, y):
    model.eval()
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--images", type=int, default=8000)
    opt = parser.parse_args()
    torch.manual_seed(17)

    raw_train, y_train = load("train", opt.images)
    raw_test, y_test = load("t10k", 2000)
    x_train, x_test = normalize(raw_train), normalize(raw_test)
    garments = raw_test[:300]

    model = Net()
    sgd = torch.optim.SGD(model.parameters(), lr=opt.lr, momentum=0.9, weight_decay=1e-4)
    loss_fn = nn.CrossEntropyLoss()
    maps = []
    for epoch in range(opt.epochs):
        model.train()
        total = 0.0
        for batch in torch.randperm(len(x_train)).split(opt.batch_size):
            loss = loss_fn(model(x_train[batch]), y_train[batch])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            total += loss.item() * len(batch)
        points, explained = embedding_map(model, garments)
        maps.append(points)
        print(f"epoch {epoch}: loss {total / len(x_train):.3f}, map explains {explained:.2f}, "
              f"test accuracy {accuracy(model, x_test, y_test):.3f}")


if __name__ == "__main__":
    main()
