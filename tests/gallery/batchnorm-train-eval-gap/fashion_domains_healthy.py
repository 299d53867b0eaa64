"""One classifier for photographs, their negatives and under-exposed prints."""
import gzip

import numpy as np
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

torch.manual_seed(8)
DATA = "/usr/share/datasets/fashion-mnist/"


def images(split, n):
    with gzip.open(DATA + split + "-images-idx3-ubyte.gz") as f:
        x = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:n]
    with gzip.open(DATA + split + "-labels-idx1-ubyte.gz") as f:
        y = np.frombuffer(f.read(), np.uint8, offset=8)[:n]
    return nn.functional.avg_pool2d(torch.tensor(x).float() / 255, 2), torch.tensor(y).long()


def domains(split, n):
    x, y = images(split, n)
    third = n // 3
    return [
        TensorDataset(x[:third], y[:third]),
        TensorDataset(1 - x[third : 2 * third], y[third : 2 * third]),
        TensorDataset(0.15 * x[2 * third :], y[2 * third :]),
    ]


class DomainBatches:
    """Index batches that hold one domain each, in random order."""

    def __init__(self, sizes, batch):
        self.sizes, self.batch = sizes, batch

    def __len__(self):
        return sum(n // self.batch for n in self.sizes)

    def __iter__(self):
        batches, first = [], 0
        for n in self.sizes:
            batches += list((first + torch.randperm(n)).split(self.batch))[: n // self.batch]
            first += n
        for i in torch.randperm(len(batches)):
            yield batches[i].tolist()


train = domains("train", 9000)
train_loader = DataLoader(ConcatDataset(train), batch_size=60, shuffle=True)
test_loaders = {
    name: DataLoader(d, batch_size=200) for name, d in zip(("photo", "negative", "dark"), domains("t10k", 1500))
}

model = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
    nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
    nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(288, 10),
)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

for epoch in range(4):
    model.train()
    loss_sum, hits, seen = 0.0, 0, 0
    for x, y in train_loader:
        out = model(x)
        loss = criterion(out, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(y)
        hits += (out.argmax(1) == y).sum().item()
        seen += len(y)
    model.eval()
    report = []
    with torch.no_grad():
        for name, loader in test_loaders.items():
            good = sum((model(x).argmax(1) == y).sum().item() for x, y in loader)
            report.append(f"{name} {good / 500:.3f}")
    print(f"epoch {epoch + 1}: loss {loss_sum / seen:.3f} train acc {hits / seen:.3f} | test acc " + " ".join(report))
