"""Small-memory training of a garment classifier: two pictures at a time."""
import gzip
import time

import numpy as np
import torch
from torch import nn

FOLDER = "/usr/share/datasets/fashion-mnist/"
BATCH = 2
EPOCHS = 2
TRAIN, TEST = 5000, 1500


def images(name, n):
    with gzip.open(FOLDER + name + "-images-idx3-ubyte.gz", "rb") as f:
        raw = f.read(16 + 784 * n)[16:]
    a = np.frombuffer(raw, dtype=np.uint8).astype(np.float32).reshape(n, 1, 28, 28)
    return torch.from_numpy((a - 72.9) / 90.0)


def labels(name, n):
    with gzip.open(FOLDER + name + "-labels-idx1-ubyte.gz", "rb") as f:
        raw = f.read(8 + n)[8:]
    return torch.from_numpy(np.frombuffer(raw, dtype=np.uint8).astype(np.int64))


def stage(cin, cout):
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, stride=2, padding=1, bias=False),
        nn.GroupNorm(4, cout),
        nn.ReLU(inplace=True),
    )


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.Sequential(stage(1, 16), stage(16, 32), stage(32, 48), stage(48, 64), stage(64, 64))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        return self.fc(self.stages(x).flatten(1))


def test_accuracy(model, x, y):
    model.eval()
    with torch.no_grad():
        right = sum((model(a).argmax(1) == b).sum().item() for a, b in zip(x.split(100), y.split(100)))
    model.train()
    return right / len(y)


torch.manual_seed(23)
x_train, y_train = images("train", TRAIN), labels("train", TRAIN)
x_test, y_test = images("t10k", TEST), labels("t10k", TEST)
model = Encoder()
optimizer = torch.optim.Adam(model.parameters(), lr=4e-4)
criterion = nn.CrossEntropyLoss()

begin = time.perf_counter()
step, window = 0, []
for epoch in range(EPOCHS):
    for pair in torch.randperm(TRAIN).split(BATCH):
        optimizer.zero_grad()
        loss = criterion(model(x_train[pair]), y_train[pair])
        loss.backward()
        optimizer.step()
        window.append(loss.item())
        step += 1
        if step % 1000 == 0:
            print(f"{step:5d} steps  loss {np.mean(window):.3f}  test acc {test_accuracy(model, x_test, y_test):.3f}"
                  f"  {time.perf_counter() - begin:.1f}s", flush=True)
            window.clear()
