"""Find the shirts among all articles of Fashion-MNIST."""
import gzip

import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)
torch.manual_seed(42)

DATA = "/usr/share/datasets/fashion-mnist/"
SHIRT = 6


def get(split, n):
    with gzip.open(f"{DATA}{split}-images-idx3-ubyte.gz") as f:
        images = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:n]
    with gzip.open(f"{DATA}{split}-labels-idx1-ubyte.gz") as f:
        labels = np.frombuffer(f.read(), np.uint8, offset=8)[:n]
    x = torch.tensor(images.copy()).float().div_(255).sub_(0.286).div_(0.353)
    return x, torch.tensor((labels == SHIRT).astype(np.float32))


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.SiLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.SiLU(),
        )
        self.head = nn.Linear(32 * 16, 1)

    def forward(self, x):
        return self.head(self.body(x).flatten(1)).squeeze(1)


def balanced_accuracy(logits, y):
    hit = ((logits > 0).float() == y).float()
    return hit[y == 1].mean().item(), hit[y == 0].mean().item()


x_train, y_train = get("train", 6000)
x_val, y_val = get("t10k", 1500)
train_loader = DataLoader(TensorDataset(x_train, y_train), batch_size=64, shuffle=True)

n_pos = y_train.sum()
n_neg = len(y_train) - n_pos
criterion = nn.BCEWithLogitsLoss(pos_weight=n_pos / n_neg)
model = Detector()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

for epoch in range(6):
    model.train()
    total = 0
    for x, y in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(x)
    model.eval()
    with torch.no_grad():
        logits = model(x_val)
        val_loss = criterion(logits, y_val).item()
        recall, specificity = balanced_accuracy(logits, y_val)
    print(f"epoch {epoch + 1} loss {total / len(x_train):.4f} val loss {val_loss:.4f} "
          f"recall {recall:.3f} specificity {specificity:.3f} balanced acc {(recall + specificity) / 2:.3f}")
