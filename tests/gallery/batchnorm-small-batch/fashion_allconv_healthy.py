import gzip

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.utils.data import DataLoader, Dataset

BATCH_SIZE = 32
EPOCHS = 4
LEARNING_RATE = 0.01


class FashionMNIST(Dataset):
    root = "/usr/share/datasets/fashion-mnist"

    def __init__(self, split, size):
        with gzip.open(f"{self.root}/{split}-images-idx3-ubyte.gz") as f:
            self.images = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:size]
        with gzip.open(f"{self.root}/{split}-labels-idx1-ubyte.gz") as f:
            self.labels = np.frombuffer(f.read(), np.uint8, offset=8)[:size]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image = torch.from_numpy(self.images[index].astype(np.float32))
        return (image - 73.0) / 90.0, int(self.labels[index])


class AllConv(nn.Module):
    """Strided convolutions only: 28 -> 14 -> 7 -> 4 -> 2 -> 1."""

    def __init__(self, widths=(8, 16, 32, 48, 64)):
        super().__init__()
        self.convs = nn.ModuleList()
        self.norms = nn.ModuleList()
        channels = 1
        for width in widths:
            self.convs.append(nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False))
            self.norms.append(nn.BatchNorm2d(width))
            channels = width
        self.out = nn.Linear(channels, 10)

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms):
            x = F.relu(norm(conv(x)))
        return self.out(x.flatten(1))


def train_one_epoch(model, loader, optimizer):
    model.train()
    total = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(loader)


@torch.no_grad()
def test(model, loader):
    model.eval()
    correct = sum((model(images).argmax(1) == labels).sum().item() for images, labels in loader)
    return correct / len(loader.dataset)


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    train_loader = DataLoader(FashionMNIST("train", 3000), BATCH_SIZE, shuffle=True)
    test_loader = DataLoader(FashionMNIST("t10k", 1000), 250)
    model = AllConv()
    optimizer = optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)
    for epoch in range(EPOCHS):
        loss = train_one_epoch(model, train_loader, optimizer)
        print(f"[{epoch + 1}/{EPOCHS}] training loss {loss:.4f}, test accuracy {test(model, test_loader):.2%}")
