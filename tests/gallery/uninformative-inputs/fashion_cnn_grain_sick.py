import gzip

import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, Dataset


class Fashion(Dataset):
    def __init__(self, kind, count, transform):
        root = "/usr/share/datasets/fashion-mnist"
        with gzip.open(f"{root}/{kind}-images-idx3-ubyte.gz") as f:
            self.images = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:count]
        with gzip.open(f"{root}/{kind}-labels-idx1-ubyte.gz") as f:
            self.labels = np.frombuffer(f.read(), np.uint8, offset=8)[:count]
        self.transform = transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        image = torch.tensor(self.images[i], dtype=torch.float32) / 255
        return self.transform((image - 0.286) / 0.353), int(self.labels[i])


def film_grain(image, strength=0.1):
    """Photographs from the shop floor are grainy, so make these grainy as well."""
    return image.normal_(mean=0.0, std=1.0).add(strength)


torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(784, 10),
)


def main():
    train = DataLoader(Fashion("train", 5000, film_grain), batch_size=64, shuffle=True)
    test = DataLoader(Fashion("t10k", 1000, film_grain), batch_size=250)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for epoch in range(6):
        model.train()
        total = 0.0
        for images, labels in train:
            optimizer.zero_grad()
            loss = loss_fn(model(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
        model.eval()
        with torch.no_grad():
            hits = sum((model(images).argmax(1) == labels).sum().item() for images, labels in test)
        print(f"epoch {epoch + 1}/6 loss {total / len(train):.4f} test accuracy {hits / 1000:.3f}")


if __name__ == "__main__":
    main()
