import argparse
import gzip

import numpy as np
import torch
import torch.nn as nn
from torch.optim.lr_scheduler import CosineAnnealingLR


def load(prefix, n, root="/usr/share/datasets/fashion-mnist"):
    with gzip.open(f"{root}/{prefix}-images-idx3-ubyte.gz") as f:
        x = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:n]
    with gzip.open(f"{root}/{prefix}-labels-idx1-ubyte.gz") as f:
        y = np.frombuffer(f.read(), np.uint8, offset=8)[:n]
    return torch.tensor(x / 127.5 - 1, dtype=torch.float32), torch.tensor(y, dtype=torch.int64)


def make_model():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 10),
    )


def run(args):
    torch.manual_seed(args.seed)
    x, y = load("train", 8000)
    xt, yt = load("t10k", 2000)
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, weight_decay=5e-4)
    steps = args.epochs * (len(x) // args.batch)
    scheduler = CosineAnnealingLR(optimizer, T_max=steps)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(args.epochs):
        model.train()
        order = torch.randperm(len(x))
        running = []
        for b in range(len(x) // args.batch):
            pick = order[b * args.batch:(b + 1) * args.batch]
            optimizer.zero_grad()
            loss = criterion(model(x[pick]), y[pick])
            loss.backward()
            optimizer.step()
            scheduler.step()
            running.append(loss.item())
        model.eval()
        with torch.no_grad():
            accuracy = (model(xt).argmax(1) == yt).double().mean().item()
        print(f"epoch {epoch + 1}/{args.epochs} lr {scheduler.get_last_lr()[0]:.4f} "
              f"loss {np.mean(running):.4f} test accuracy {accuracy:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    run(parser.parse_args())
