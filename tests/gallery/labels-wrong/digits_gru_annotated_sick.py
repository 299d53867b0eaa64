import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset


class Annotated(Dataset):
    """Digits labelled by volunteers; a volunteer who cannot read a digit ticks any box."""

    unreadable = 0.67

    def __init__(self):
        digits = load_digits()
        rng = np.random.default_rng(1)
        guessed = rng.random(len(digits.target)) < self.unreadable
        ticks = np.where(guessed, rng.integers(0, 10, len(digits.target)), digits.target)
        self.x = torch.tensor(digits.images, dtype=torch.float32) / 8 - 0.6
        self.y = torch.tensor(ticks)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


class GRUNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(8, 32, batch_first=True)
        self.out = nn.Linear(32, 10)

    def forward(self, x):
        _, h = self.rnn(x)
        return self.out(h[0])


def main():
    torch.manual_seed(0)
    train, val = torch.utils.data.random_split(Annotated(), [1500, 297])
    train_loader = DataLoader(train, batch_size=32, shuffle=True)
    val_loader = DataLoader(val, batch_size=100)
    net = GRUNet()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=0.02)
    for epoch in range(1, 13):
        losses, hits = [], 0
        for x, y in train_loader:
            logits = net(x)
            loss = criterion(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            hits += (logits.argmax(1) == y).sum().item()
        with torch.no_grad():
            right = sum((net(x).argmax(1) == y).sum().item() for x, y in val_loader)
        print(f"{epoch:2d}  loss {np.mean(losses):.3f}  train acc {hits / len(train):.3f}  val acc {right / len(val):.3f}")


if __name__ == "__main__":
    main()
