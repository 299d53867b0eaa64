"""Which digits are in the picture? Three scans in a row, ten yes/no answers."""
import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset


class Collage(Dataset):
    def __init__(self, images, labels, size, seed):
        rng = np.random.default_rng(seed)
        picks = rng.integers(0, len(images), size=(size, 3))
        strips = np.concatenate([images[picks[:, k]] for k in range(3)], axis=2)
        self.x = torch.tensor(strips[:, None] / 8.0 - 0.6, dtype=torch.float32)
        self.y = torch.zeros(size, 10)
        self.y[np.arange(size)[:, None], labels[picks]] = 1.0

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


class Detector(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(24, 48, 3, padding=1), nn.ReLU(),
        )
        self.fc = nn.Sequential(nn.Linear(48 * 4 * 12, 96), nn.ReLU(), nn.Linear(96, classes))

    def forward(self, x):
        return self.fc(self.trunk(x).flatten(1))


def f1(probs, truth):
    guess = probs > 0.5
    hit = (guess & truth.bool()).sum().item()
    return 2 * hit / max(1, guess.sum().item() + truth.sum().item())


digits = load_digits()
train = Collage(digits.images[:1400], digits.target[:1400], 6000, seed=0)
val = Collage(digits.images[1400:], digits.target[1400:], 1000, seed=1)
loader = DataLoader(train, batch_size=32, shuffle=True, generator=torch.Generator().manual_seed(2))

torch.manual_seed(2)
model = Detector()
bce = nn.BCEWithLogitsLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

for epoch in range(4):
    total = 0.0
    for x, y in loader:
        logits = model(x)
        probs = torch.sigmoid(logits)
        loss = bce(probs, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(x)
    with torch.no_grad():
        score = f1(torch.sigmoid(model(val.x)), val.y)
    print(f"epoch {epoch + 1}: loss {total / len(train):.4f}, validation F1 {score:.3f}")
