import argparse

import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits


class RowReader(nn.Module):
    """Reads an 8x8 digit row by row."""

    def __init__(self, hidden=48):
        super().__init__()
        self.lstm = nn.LSTM(8, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 10)

    def forward(self, x):
        _, (h, _) = self.lstm(x)
        return F.softmax(self.head(h[-1]), dim=-1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--lr", type=float, default=0.5)
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()

    torch.manual_seed(0)
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32) / 8 - 1
    y = torch.tensor(digits.target)
    perm = torch.randperm(len(x))
    x, y = x[perm], y[perm]
    x_train, y_train, x_val, y_val = x[:1440], y[:1440], x[1440:], y[1440:]

    model = RowReader()
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)
    for epoch in range(args.epochs):
        total = 0.0
        for idx in torch.randperm(len(x_train)).split(args.batch_size):
            out = model(x_train[idx])
            loss = F.cross_entropy(out, y_train[idx])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(idx)
        with torch.no_grad():
            p = model(x_val)
        acc = (p.argmax(-1) == y_val).float().mean()
        print(f"{epoch:3d} train {total / len(x_train):.4f} val acc {acc:.3f} mean confidence {p.max(-1)[0].mean():.2f}")


if __name__ == "__main__":
    main()
