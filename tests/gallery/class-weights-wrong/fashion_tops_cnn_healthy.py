import gzip

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

FOLDER = "/usr/share/datasets/fashion-mnist"
CATALOGUE = {2: 2400, 4: 1200, 6: 400}  # pullovers, coats, shirts in stock


def load(kind, counts):
    with gzip.open(f"{FOLDER}/{kind}-images-idx3-ubyte.gz") as f:
        images = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(f"{FOLDER}/{kind}-labels-idx1-ubyte.gz") as f:
        labels = np.frombuffer(f.read(), np.uint8, offset=8)
    xs, ys = [], []
    for new, (old, count) in enumerate(counts.items()):
        chosen = np.flatnonzero(labels == old)[:count]
        xs.append(torch.tensor(images[chosen], dtype=torch.float32) / 255)
        ys.append(torch.full((len(chosen),), new))
    return (torch.cat(xs) - 0.38) / 0.33, torch.cat(ys)


class TopsNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.fc1 = nn.Linear(16 * 49, 32)
        self.fc2 = nn.Linear(32, 3)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x)).flatten(1)
        return self.fc2(F.relu(self.fc1(x)))


def main():
    torch.manual_seed(0)
    x, y = load("train", CATALOGUE)
    x_val, y_val = load("t10k", {2: 500, 4: 500, 6: 500})
    counts = torch.bincount(y).float()
    weight = counts.sum() / (3 * counts)
    print("class weights", [round(w, 2) for w in weight.tolist()])
    criterion = nn.CrossEntropyLoss(weight=weight)
    model = TopsNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
    for epoch in range(12):
        total = 0.0
        for xb, yb in loader:
            loss = criterion(model(xb), yb)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        with torch.no_grad():
            guess, seen = model(x_val).argmax(1), model(x).argmax(1)
        recalls = [(guess[y_val == c] == c).float().mean().item() for c in range(3)]
        train = np.mean([(seen[y == c] == c).float().mean().item() for c in range(3)])
        print(f"epoch {epoch} loss {total / len(loader):.4f} recall", " ".join(f"{r:.2f}" for r in recalls), f"mean {np.mean(recalls):.3f} (training images {train:.3f})")


if __name__ == "__main__":
    main()
