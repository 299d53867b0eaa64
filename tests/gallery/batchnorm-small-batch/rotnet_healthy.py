"""Self-supervised start: by how many quarter turns was the picture rotated?"""
import gzip

import torch
import torch.nn as nn
import numpy as np

torch.manual_seed(30)
torch.set_num_threads(1)

with gzip.open("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz") as f:
    pictures = np.frombuffer(f.read(16 + 5000 * 784), np.uint8, offset=16).reshape(-1, 28, 28)
pictures = nn.functional.avg_pool2d(torch.tensor(pictures).float()[:, None] / 255, 2)
pictures = (pictures - 0.286) / 0.32
train_pictures, val_pictures = pictures[:4200], pictures[4200:]

BATCH = 8
EPOCHS = 3


def rotated(x):
    """Every picture with a random number of quarter turns."""
    turns = torch.randint(4, (len(x),))
    return torch.stack([torch.rot90(p, int(k), (1, 2)) for p, k in zip(x, turns)]), turns


def conv_bn(cin, cout, stride):
    return [nn.Conv2d(cin, cout, 3, stride, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]


encoder = nn.Sequential(*conv_bn(1, 16, 2), *conv_bn(16, 32, 2), nn.Flatten())
head = nn.Sequential(
    nn.Linear(32 * 16, 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(),
    nn.Linear(64, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(),
    nn.Linear(32, 4),
)
model = nn.Sequential(encoder, head)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
criterion = nn.CrossEntropyLoss()
val_x, val_k = rotated(val_pictures)

for epoch in range(EPOCHS):
    model.train()
    total = steps = 0
    for rows in torch.randperm(len(train_pictures)).split(BATCH):
        x, k = rotated(train_pictures[rows])
        loss = criterion(model(x), k)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        steps += 1
    model.eval()
    with torch.no_grad():
        acc = (model(val_x).argmax(1) == val_k).float().mean()
    print(f"epoch {epoch}: loss {total / steps:.3f} rotation accuracy {acc:.3f}")
