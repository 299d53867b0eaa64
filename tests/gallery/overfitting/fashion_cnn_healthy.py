import gzip

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset


def load(split, start, stop):
    root = "/usr/share/datasets/fashion-mnist/" + split
    x = np.frombuffer(gzip.open(root + "-images-idx3-ubyte.gz").read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    y = np.frombuffer(gzip.open(root + "-labels-idx1-ubyte.gz").read(), np.uint8, offset=8)
    x = torch.tensor(x[start:stop], dtype=torch.float32)
    return TensorDataset((x - 73.0) / 90.0, torch.tensor(y[start:stop], dtype=torch.long))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.fc1 = nn.Linear(32 * 49, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = F.dropout(x, 0.3, self.training)
        x = F.relu(self.fc1(x.flatten(1)))
        return self.fc2(x)


def epoch_loss(model, loader, optimizer=None):
    model.train(optimizer is not None)
    total, right, n = 0.0, 0, 0
    with torch.set_grad_enabled(optimizer is not None):
        for x, y in loader:
            out = model(x)
            loss = F.cross_entropy(out, y)
            if optimizer is not None:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            total += loss.item() * len(y)
            right += (out.argmax(1) == y).sum().item()
            n += len(y)
    return total / n, right / n


torch.manual_seed(3)
train = DataLoader(load("train", 0, 12000), batch_size=64, shuffle=True)
val = DataLoader(load("t10k", 0, 1000), batch_size=500)
model = Net()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

for epoch in range(6):
    train_loss, train_acc = epoch_loss(model, train, optimizer)
    val_loss, val_acc = epoch_loss(model, val)


    print(f"epoch {epoch + 1:2d}: train {train_loss:.4f} ({train_acc:.3f})  val {val_loss:.4f} ({val_acc:.3f})")
