import gzip
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(1)
data_dir = Path("/usr/share/datasets/fashion-mnist")


def read(name, offset):
    return np.frombuffer(gzip.decompress((data_dir / name).read_bytes()), dtype=np.uint8, offset=offset)


images = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)[:7000].astype(np.float32) / 255.0
labels = read("train-labels-idx1-ubyte.gz", 8)[:7000].astype(np.int64)
images = (images - images.mean()) / images.std()

train = TensorDataset(torch.from_numpy(images[:6000]), torch.from_numpy(labels[:6000]))
test = TensorDataset(torch.from_numpy(images[6000:]), torch.from_numpy(labels[6000:]))
train_loader = DataLoader(train, batch_size=64, shuffle=True)
test_loader = DataLoader(test, batch_size=500)

model = nn.Sequential(
    nn.Conv2d(1, 8, kernel_size=3, padding=1),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Conv2d(8, 16, kernel_size=3, padding=1),
    nn.ReLU(),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(16 * 7 * 7, 64),
    nn.ReLU(),
    nn.Linear(64, 10),
    nn.Softmax(dim=1),
)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.5)

for epoch in range(8):
    model.train()
    for step, (x, y) in enumerate(train_loader):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        if step % 40 == 0:
            print(f"epoch {epoch} step {step:3d} loss {loss.item():.4f}")
    model.eval()
    correct = 0
    with torch.no_grad():
        for x, y in test_loader:
            correct += (model(x).argmax(dim=1) == y).sum().item()
    print(f"epoch {epoch} test accuracy {correct / len(test):.3f}")
