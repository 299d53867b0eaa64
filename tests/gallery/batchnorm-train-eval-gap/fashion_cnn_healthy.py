import gzip

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset


class Fashion(Dataset):
    def __init__(self, split, count):
        base = "/usr/share/datasets/fashion-mnist/" + split
        with gzip.open(base + "-images-idx3-ubyte.gz") as f:
            raw = np.frombuffer(f.read(16 + count * 784), dtype=np.uint8, offset=16).reshape(count, 1, 28, 28)
        with gzip.open(base + "-labels-idx1-ubyte.gz") as f:
            self.labels = torch.from_numpy(np.frombuffer(f.read(8 + count), dtype=np.uint8, offset=8).astype(np.int64))
        self.images = (torch.from_numpy(raw.astype(np.float32)) / 255 - 0.2860) / 0.3530

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.images[i], self.labels[i]


def conv(cin, cout, momentum=0.05):
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(cout, momentum=momentum),
        nn.ReLU(inplace=True),
    )


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(conv(1, 16), conv(16, 32), conv(32, 64), conv(64, 64))
        self.classifier = nn.Linear(64 * 4, 10)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


@torch.no_grad()
def score(model, dataset):
    model.eval()
    loss, right = 0.0, 0
    for x, y in DataLoader(dataset, batch_size=500):
        out = model(x)
        loss += nn.functional.cross_entropy(out, y, reduction="sum").item()
        right += (out.argmax(1) == y).sum().item()
    return loss / len(dataset), right / len(dataset)


torch.manual_seed(0)
train_set = Fashion("train", 6000)
test_set = Fashion("t10k", 2000)
loader = DataLoader(train_set, batch_size=64, shuffle=True)

model = Net()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
for epoch in range(4):
    model.train()
    running = 0.0
    for x, y in loader:
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running += loss.item()
    train_loss, train_acc = score(model, train_set)
    test_loss, test_acc = score(model, test_set)
    print(f"epoch {epoch}: running loss {running / len(loader):.3f} | "
          f"train set {train_loss:.3f} / {train_acc:.3f} | test set {test_loss:.3f} / {test_acc:.3f}")
