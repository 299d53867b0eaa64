import argparse

import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset


def block(cin, cout):
    return nn.Sequential(nn.Conv2d(cin, cout, 3, padding=1, bias=False), nn.GroupNorm(4, cout), nn.ReLU())


def build():
    return nn.Sequential(
        block(1, 16),
        nn.MaxPool2d(2),
        block(16, 32),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 64, bias=False),
        nn.GroupNorm(4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def evaluate(model, x, y):
    model.eval()
    with torch.no_grad():
        out = model(x)
        result = nn.functional.cross_entropy(out, y).item(), (out.argmax(1) == y).float().mean().item()
    model.train()
    return result


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--batch-size", type=int, default=4)
    p.add_argument("--epochs", type=int, default=5)
    p.add_argument("--lr", type=float, default=1e-3)
    args = p.parse_args()

    torch.manual_seed(3)
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16 - 0.3
    y = torch.tensor(data.target)
    train_idx, val_idx = train_test_split(range(len(y)), test_size=0.25, random_state=0)
    loader = DataLoader(TensorDataset(x[train_idx], y[train_idx]), batch_size=args.batch_size, shuffle=True, drop_last=True)

    model = build()
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(args.epochs):
        running = 0.0
        for i, (xb, yb) in enumerate(loader):
            optimizer.zero_grad()
            loss = criterion(model(xb), yb)
            loss.backward()
            optimizer.step()
            running += loss.item()
        val_loss, val_acc = evaluate(model, x[val_idx], y[val_idx])
        print(f"epoch {epoch + 1}  train loss {running / len(loader):.3f}  val loss {val_loss:.3f}  val acc {val_acc:.3f}")


if __name__ == "__main__":
    main()
