import gzip

import numpy as np
import torch
from torch import nn, optim
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset


def read_images(split, count):
    folder = "/usr/share/datasets/fashion-mnist"
    with gzip.open(f"{folder}/{split}-images-idx3-ubyte.gz") as f:
        images = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 28, 28)[:count]
    with gzip.open(f"{folder}/{split}-labels-idx1-ubyte.gz") as f:
        labels = np.frombuffer(f.read(), np.uint8, offset=8)[:count]
    x = (torch.tensor(images, dtype=torch.float32) / 255 - 0.286) / 0.353
    return x.unsqueeze(1), torch.tensor(labels, dtype=torch.long)


def train_one_epoch(model, loader, optimizer, scheduler):
    model.train()
    total = 0.0
    for x, y in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item()
    scheduler.step()
    return total / len(loader)


@torch.no_grad()
def test(model, x, y):
    model.eval()
    return (model(x).argmax(1) == y).float().mean().item()


def main():
    torch.manual_seed(8)
    train_x, train_y = read_images("train", 8000)
    test_x, test_y = read_images("t10k", 1500)
    loader = DataLoader(TensorDataset(train_x, train_y), batch_size=64, shuffle=True)

    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(24 * 7 * 7, 10),
    )
    optimizer = optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    scheduler = StepLR(optimizer, step_size=3, gamma=0.3)

    for epoch in range(1, 6):
        loss = train_one_epoch(model, loader, optimizer, scheduler)
        print(f"epoch {epoch}: loss {loss:.4f}, test accuracy {test(model, test_x, test_y):.3f}")


if __name__ == "__main__":
    main()
