import gzip

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

DATA = "/usr/share/datasets/fashion-mnist"


class Fashion(Dataset):
    def __init__(self, split, count):
        with gzip.open(f"{DATA}/{split}-images-idx3-ubyte.gz", "rb") as f:
            pixels = np.frombuffer(f.read(), dtype=np.uint8, offset=16)
        with gzip.open(f"{DATA}/{split}-labels-idx1-ubyte.gz", "rb") as f:
            self.targets = np.frombuffer(f.read(), dtype=np.uint8, offset=8)[:count].astype(np.int64)
        self.pixels = pixels.reshape(-1, 1, 28, 28)[:count]

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        image = torch.from_numpy(self.pixels[index].astype(np.float32) / 127.5 - 1.0)
        return image, int(self.targets[index])


class SmallCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(1, 16, 3, stride=2, padding=1)
        self.b1 = nn.BatchNorm2d(16)
        self.c2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.b2 = nn.BatchNorm2d(32)
        self.out = nn.Linear(32 * 7 * 7, 10)

    def forward(self, x):
        x = F.relu(self.b1(self.c1(x)))
        x = F.relu(self.b2(self.c2(x)))
        return self.out(x.flatten(1))


def main():
    torch.manual_seed(0)
    train_loader = DataLoader(Fashion("train", 8000), batch_size=64, shuffle=True)
    test_loader = DataLoader(Fashion("t10k", 1500), batch_size=250)
    model = SmallCNN()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6)

    for epoch in range(1, 5):
        model.train()
        total, n = 0.0, 0
        for images, targets in train_loader:
            loss = F.cross_entropy(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(targets)
            n += len(targets)
        model.eval()
        hits = 0
        with torch.no_grad():
            for images, targets in test_loader:
                hits += (model(images).argmax(1) == targets).sum().item()
        print(f"epoch {epoch} | train loss {total / n:.4f} | test acc {hits / 1500:.3f}")


if __name__ == "__main__":
    main()
