import gzip
import itertools

import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class RowReader(nn.Module):
    """Reads a 14x14 picture from top to bottom."""

    def __init__(self, hidden=64):
        super().__init__()
        self.lstm = nn.LSTM(14, hidden, batch_first=True)
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, 10)

    def forward(self, x):
        _, (h, _) = self.lstm(x)
        return self.head(self.norm(h[-1]))


def dataset(count=7000):
    folder = "/usr/share/datasets/fashion-mnist"
    with gzip.open(f"{folder}/train-images-idx3-ubyte.gz") as f:
        pixels = np.frombuffer(f.read(16 + count * 784), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(f"{folder}/train-labels-idx1-ubyte.gz") as f:
        labels = np.frombuffer(f.read(8 + count), np.uint8, offset=8)
    pixels = nn.functional.avg_pool2d(torch.tensor(pixels, dtype=torch.float32), 2).squeeze(1) / 255
    return TensorDataset((pixels - pixels.mean()) / pixels.std(), torch.tensor(labels, dtype=torch.long))


def forever(loader):
    while True:
        yield from loader


def fit(max_steps=2500, batch_size=2, lr=1e-2):
    torch.manual_seed(21)
    train, valid = random_split(dataset(), [6000, 1000])
    loader = DataLoader(train, batch_size=batch_size, shuffle=True)
    model = RowReader()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
    seen = []
    for step, (x, y) in enumerate(itertools.islice(forever(loader), max_steps), 1):
        loss = criterion(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
        if step % 250 == 0:
            with torch.no_grad():
                vx, vy = valid[:]
                hits = (model(vx).argmax(1) == vy).float().mean().item()
            print(f"{step:5d} loss {np.mean(seen[-250:]):.3f} valid {hits:.3f}")


if __name__ == "__main__":
    fit()
