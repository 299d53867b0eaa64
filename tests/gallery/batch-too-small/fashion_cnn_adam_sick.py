import gzip

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset

ROOT = "/usr/share/datasets/fashion-mnist"


class FashionMNIST(Dataset):
    def __init__(self, split, count):
        with gzip.open(f"{ROOT}/{split}-images-idx3-ubyte.gz") as f:
            pixels = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:count]
        with gzip.open(f"{ROOT}/{split}-labels-idx1-ubyte.gz") as f:
            labels = np.frombuffer(f.read(), np.uint8, offset=8)[:count]
        self.images = (torch.tensor(pixels, dtype=torch.float32) / 255 - 0.286) / 0.353
        self.labels = torch.tensor(labels, dtype=torch.long)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.images[i], self.labels[i]


class ConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 12, 5, stride=2, padding=2)
        self.conv2 = nn.Conv2d(12, 24, 3, stride=2, padding=1)
        self.fc1 = nn.Linear(24 * 7 * 7, 48)
        self.fc2 = nn.Linear(48, 10)

    def forward(self, x):
        x = F.leaky_relu(self.conv1(x), 0.1)
        x = F.leaky_relu(self.conv2(x), 0.1)
        x = F.leaky_relu(self.fc1(x.flatten(1)), 0.1)
        return self.fc2(x)


@torch.no_grad()
def accuracy(model, data):
    model.eval()
    return (model(data.images).argmax(1) == data.labels).float().mean().item()


def main():
    torch.manual_seed(0)
    train, test = FashionMNIST("train", 4500), FashionMNIST("t10k", 1500)
    loader = DataLoader(train, batch_size=1, shuffle=True)
    model = ConvNet()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for epoch in range(2):
        model.train()
        running = 0.0
        for images, labels in loader:
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            running += loss.item()
        print(f"[{epoch}] loss {running / len(loader):.4f} test accuracy {accuracy(model, test):.3f}")


if __name__ == "__main__":
    main()
