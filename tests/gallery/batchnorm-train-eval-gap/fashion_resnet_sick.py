import argparse
import gzip
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--batch-size", type=int, default=64)
parser.add_argument("--lr", type=float, default=2e-3)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
torch.manual_seed(args.seed)

ROOT = "/usr/share/datasets/fashion-mnist/"


def read(prefix, n):
    with gzip.open(ROOT + prefix + "-images-idx3-ubyte.gz") as f:
        x = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:n]
    with gzip.open(ROOT + prefix + "-labels-idx1-ubyte.gz") as f:
        y = np.frombuffer(f.read(), np.uint8, offset=8)[:n]
    x = (torch.from_numpy(x.copy()).float() / 255 - 0.286) / 0.353
    return TensorDataset(x, torch.from_numpy(y.copy()).long())


class Block(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.skip = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x):
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(h)) + self.skip(x))


def make_model():
    return nn.Sequential(Block(1, 12, 2), Block(12, 24, 2), Block(24, 48, 2),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10))


@torch.no_grad()
def throughput(model, rounds=30):
    x = torch.rand(64, 1, 28, 28)
    t0 = time.perf_counter()
    for _ in range(rounds):
        model(x)
    return 64 * rounds / (time.perf_counter() - t0)


@torch.no_grad()
def evaluate(model, loader):
    speed = throughput(model)
    model.eval()
    loss = hits = n = 0
    for x, y in loader:
        out = model(x)
        loss += F.cross_entropy(out, y, reduction="sum").item()
        hits += (out.argmax(1) == y).sum().item()
        n += len(y)
    return loss / n, hits / n, speed


train_loader = DataLoader(read("train", 6000), args.batch_size, shuffle=True)
test_loader = DataLoader(read("t10k", 1000), 250)
model = make_model()
opt = torch.optim.AdamW(model.parameters(), lr=args.lr)
sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, args.epochs * len(train_loader))

for epoch in range(args.epochs):
    model.train()
    running = 0.0
    for x, y in train_loader:
        opt.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        opt.step()
        sched.step()
        running += loss.item()
    val_loss, val_acc, speed = evaluate(model, test_loader)
    print(f"epoch {epoch + 1} train {running / len(train_loader):.3f} val {val_loss:.3f} acc {val_acc:.3f} ({speed:.0f} img/s)")
