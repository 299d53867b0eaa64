import gzip
import struct

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def read_idx(path):
    with gzip.open(path, "rb") as f:
        _, dims = struct.unpack(">HxB", f.read(4))
        shape = struct.unpack(f">{dims}I", f.read(4 * dims))
        return np.frombuffer(f.read(), dtype=np.uint8).reshape(shape)


folder = "/usr/share/datasets/fashion-mnist"
images = read_idx(f"{folder}/train-images-idx3-ubyte.gz")[:6000]
labels = read_idx(f"{folder}/train-labels-idx1-ubyte.gz")[:6000]

x = torch.from_numpy(images.astype(np.float32)).sub(73).div(90)
y = torch.from_numpy(labels.astype(np.int64))
x_train, y_train, x_val, y_val = x[:5000], y[:5000], x[5000:], y[5000:]


class RowLSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(28, 48, batch_first=True)
        self.head = nn.Linear(48, 10)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.head(out[:, -1])


torch.manual_seed(0)
model = RowLSTM()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for epoch in range(10):
    total = 0.0
    for idx in torch.randperm(len(x_train)).split(64):
        loss = F.cross_entropy(model(x_train[idx]), y_train[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(idx)
    with torch.no_grad():
        acc = (model(x_val).argmax(1) == y_val).float().mean()
    print(f"epoch {epoch + 1}: loss {total / len(x_train):.4f}, validation accuracy {acc:.3f}")
