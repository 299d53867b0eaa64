import gzip

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset


def fashion(split, n):
    root = "/usr/share/datasets/fashion-mnist/" + split
    with gzip.open(root + "-images-idx3-ubyte.gz") as f:
        x = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:n] / np.float32(255)
    with gzip.open(root + "-labels-idx1-ubyte.gz") as f:
        y = np.frombuffer(f.read(), np.uint8, offset=8)[:n].astype(np.int64)
    x = F.avg_pool2d(torch.from_numpy(x), 2)
    return TensorDataset((x - 0.286) / 0.33, torch.from_numpy(y))


def unit(cin, cout):
    return [nn.Conv2d(cin, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU()]


class VGG(nn.Module):
    def __init__(self, plan=(12, 12, 12, 12, "M", 16, 16, 16, 16, 16, "M", 24, 24, 24, 24, 24)):
        super().__init__()
        layers, c = [], 1
        for p in plan:
            if p == "M":
                layers.append(nn.MaxPool2d(2))
            else:
                layers += unit(c, p)
                c = p
        self.features = nn.Sequential(*layers)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(c * 9, 10)

    def forward(self, x):
        return self.fc(self.drop(self.features(x).flatten(1)))


@torch.no_grad()
def validate(model, loader):
    model.eval()
    loss, correct, n = 0.0, 0, 0
    for x, y in loader:
        out = model(x)
        loss += F.cross_entropy(out, y, reduction="sum").item()
        correct += (out.argmax(1) == y).sum().item()
        n += len(y)
    model.train()
    return loss / n, correct / n


def main():
    torch.manual_seed(1)
    train_loader = DataLoader(fashion("train", 4000), batch_size=50, shuffle=True)
    val_loader = DataLoader(fashion("t10k", 1000), batch_size=250)
    model = VGG()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5 * len(train_loader))
    model.train()
    step = 0
    for epoch in range(5):
        for x, y in train_loader:
            if step % 80 == 0:
                val_loss, val_acc = validate(model, val_loader)
                print(f"step {step}: validation loss {val_loss:.3f}, accuracy {val_acc:.3f}")
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            step += 1
        print(f"epoch {epoch} done, last training loss {loss.item():.3f}")
    print("final:", validate(model, val_loader))


main()
