import gzip

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

ROOT = "/usr/share/datasets/fashion-mnist/"
ATTRIBUTES = {
    "footwear": {5, 7, 9},
    "upper body": {0, 2, 3, 4, 6},
    "long sleeves": {2, 4},
    "covers the ankle": {1, 9},
}


class Attributes(Dataset):
    """Images with one yes/no target per attribute."""

    def __init__(self, split, limit):
        with gzip.open(f"{ROOT}{split}-images-idx3-ubyte.gz", "rb") as f:
            pixels = np.frombuffer(f.read(), np.uint8, offset=16)[: limit * 784]
        with gzip.open(f"{ROOT}{split}-labels-idx1-ubyte.gz", "rb") as f:
            labels = np.frombuffer(f.read(), np.uint8, offset=8)[:limit]
        self.x = (torch.tensor(pixels).float().view(limit, 1, 28, 28) / 255 - 0.286) / 0.353
        table = [[float(c in members) for members in ATTRIBUTES.values()] for c in range(10)]
        self.y = torch.tensor(table)[torch.tensor(labels).long()]

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(16 * 49, 64), nn.ReLU(), nn.Linear(64, len(ATTRIBUTES)),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return self.classifier(self.features(x))


def main():
    torch.manual_seed(0)
    train, test = Attributes("train", 5000), Attributes("t10k", 1000)
    loader = DataLoader(train, batch_size=64, shuffle=True)
    model = Tagger()
    criterion = nn.BCEWithLogitsLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(6):
        losses = []
        for x, y in loader:
            loss = criterion(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        with torch.no_grad():
            guess = model(test.x) > 0.5
        exact = (guess == (test.y > 0.5)).all(dim=1).float().mean()
        found = (guess & (test.y > 0.5)).sum() / test.y.sum()
        print(f"epoch {epoch + 1} loss {np.mean(losses):.4f} all attributes right {exact:.3f} attributes found {found:.3f}")


if __name__ == "__main__":
    main()
