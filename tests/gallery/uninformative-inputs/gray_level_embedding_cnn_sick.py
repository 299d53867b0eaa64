"""Fashion-MNIST with pixels cut into a few gray levels, each level with a learned embedding."""
import argparse
import gzip
import os

import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(6)


class GrayLevels(Dataset):
    def __init__(self, root, split, count, levels):
        with gzip.open(os.path.join(root, f"{split}-images-idx3-ubyte.gz")) as f:
            img = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 28, 28)[:count]
        with gzip.open(os.path.join(root, f"{split}-labels-idx1-ubyte.gz")) as f:
            lab = np.frombuffer(f.read(), np.uint8, offset=8)[:count]
        img = img[:, ::2, ::2].astype(np.int64)
        self.codes = torch.from_numpy(img // 256 * levels)
        self.labels = torch.from_numpy(lab.astype(np.int64))

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.codes[index], self.labels[index]


class ConvBlock(nn.Module):
    def __init__(self, ch):
        super().__init__()
        self.conv = nn.Conv2d(ch, ch, 3, padding=1)
        self.mix = nn.Conv2d(ch, ch, 1)
        self.act = nn.GELU()

    def forward(self, x):
        return x + self.act(self.mix(self.act(self.conv(x))))


class LevelNet(nn.Module):
    def __init__(self, levels, emb=6, ch=24):
        super().__init__()
        self.emb = nn.Embedding(levels, emb)
        self.stem = nn.Conv2d(emb, ch, 4, stride=2, padding=1)
        self.blocks = nn.Sequential(ConvBlock(ch))
        self.head = nn.Linear(ch * 49, 10)

    def forward(self, codes):
        x = self.emb(codes).permute(0, 3, 1, 2)
        return self.head(self.blocks(self.stem(x)).flatten(1))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--data", default="/usr/share/datasets/fashion-mnist")
    p.add_argument("--levels", type=int, default=16)
    p.add_argument("--epochs", type=int, default=5)
    cfg = p.parse_args()

    train = DataLoader(GrayLevels(cfg.data, "train", 8000, cfg.levels), batch_size=64, shuffle=True)
    test = DataLoader(GrayLevels(cfg.data, "t10k", 1000, cfg.levels), batch_size=250)
    net = LevelNet(cfg.levels)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)

    for epoch in range(cfg.epochs):
        net.train()
        total = 0.0
        for codes, labels in train:
            loss = criterion(net(codes), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        net.eval()
        test_loss, right = 0.0, 0
        with torch.no_grad():
            for codes, labels in test:
                out = net(codes)
                test_loss += criterion(out, labels).item() / len(test)
                right += (out.argmax(1) == labels).sum().item()
        print(f"epoch {epoch}: train loss {total / len(train):.4f}, test loss {test_loss:.4f}, test acc {right / 1000:.3f}")


if __name__ == "__main__":
    main()
