import argparse
import gzip
import os

import numpy as np
import torch
import torch.nn as nn
import torch.optim as optim
from torch.utils.data import DataLoader, TensorDataset


def load(root, split, n):
    def read(kind, offset):
        with gzip.open(os.path.join(root, f"{split}-{kind}-ubyte.gz")) as f:
            return np.frombuffer(f.read(), np.uint8, offset=offset)

    x = read("images-idx3", 16).reshape(-1, 1, 28, 28)[:n].astype(np.float32) / 255.0
    y = read("labels-idx1", 8)[:n].astype(np.int64)
    return TensorDataset(torch.from_numpy((x - 0.286) / 0.353), torch.from_numpy(y))


class Net(nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        )
        self.fc = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(dropout), nn.Linear(32 * 49, 128), nn.ReLU(),
            nn.Dropout(dropout), nn.Linear(128, 10),
        )

    def forward(self, x):
        return self.fc(self.conv(x))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--dropout", type=float, default=0.95)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=6)
    args = parser.parse_args()
    torch.manual_seed(0)

    train = DataLoader(load(args.data, "train", 8000), batch_size=64, shuffle=True)
    test = DataLoader(load(args.data, "t10k", 2000), batch_size=500)
    net = Net(args.dropout)
    optimizer = optim.Adam(net.parameters(), lr=args.lr)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(args.epochs):
        net.train()
        running = 0.0
        for x, y in train:
            optimizer.zero_grad()
            loss = criterion(net(x), y)
            loss.backward()
            optimizer.step()
            running += loss.item()
        net.eval()
        loss, right = 0.0, 0
        with torch.no_grad():
            for x, y in test:
                out = net(x)
                loss += criterion(out, y).item()
                right += (out.argmax(1) == y).sum().item()
        print(f"epoch {epoch + 1}: train loss {running / len(train):.3f}, "
              f"test loss {loss / len(test):.3f}, test accuracy {right / 2000:.3f}")


if __name__ == "__main__":
    main()
