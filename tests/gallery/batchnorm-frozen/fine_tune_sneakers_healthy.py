"""Pretrain on the clothes of Fashion-MNIST, then fine-tune on shoes and bags with the normalization layers fixed."""
import gzip

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CLOTHES, OTHERS = [0, 1, 2, 3, 4, 6], [5, 7, 8, 9]


def read(split, classes, limit):
    name = f"/usr/share/datasets/fashion-mnist/{split}"
    with gzip.open(name + "-images-idx3-ubyte.gz") as f:
        images = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(name + "-labels-idx1-ubyte.gz") as f:
        labels = np.frombuffer(f.read(), np.uint8, offset=8)
    rows = np.flatnonzero(np.isin(labels, classes))[:limit]
    x = (torch.tensor(images[rows]).float() / 255 - 0.286) / 0.353
    return TensorDataset(x, torch.tensor(np.searchsorted(classes, labels[rows])))


def backbone(width=16, depth=14):
    layers, channels = [], 1
    for i in range(depth):
        stride = 2 if i in (0, 3, 6) else 1
        layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.Flatten())


def freeze_statistics(model):
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eval()


def fit(model, train, test, epochs, lr, fixed):
    loader = DataLoader(train, batch_size=50, shuffle=True)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for epoch in range(epochs):
        model.train()
        if fixed:
            freeze_statistics(model)
        losses = []
        for x, y in loader:
            loss = criterion(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            acc = (model(test.tensors[0]).argmax(1) == test.tensors[1]).float().mean()
        print(f"  epoch {epoch + 1}: loss {np.mean(losses):.4f} test accuracy {acc:.3f}")


torch.manual_seed(2)
print("pretraining")
body = backbone()
fit(nn.Sequential(body, nn.Linear(256, 6)), read("train", CLOTHES, 3000), read("t10k", CLOTHES, 600), 2, 2e-3, False)
weights = {name: p.detach().clone() for name, p in body.state_dict().items()}

print("fine-tuning")
new = backbone()
new.load_state_dict(weights, strict=False)
fit(nn.Sequential(new, nn.Linear(256, 4)), read("train", OTHERS, 2000), read("t10k", OTHERS, 400), 4, 5e-4, True)
