import gzip

import numpy as np
import torch
import torch.nn as nn


class TwoLayerNet(nn.Module):
    def __init__(self, inputs=784, hidden=100, classes=10):
        super().__init__()
        self.fc1 = nn.Linear(inputs, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, classes)

    def forward(self, x):
        x = torch.tanh(self.fc1(x))
        x = torch.tanh(self.fc2(x))
        return self.fc3(x)


class Data:
    """Fashion-MNIST as flat vectors, with shuffled batches."""

    def __init__(self, split, limit):
        stem = f"/usr/share/datasets/fashion-mnist/{split}"
        with gzip.open(stem + "-images-idx3-ubyte.gz") as f:
            raw = np.frombuffer(f.read(), dtype=np.uint8, offset=16)
        with gzip.open(stem + "-labels-idx1-ubyte.gz") as f:
            raw_labels = np.frombuffer(f.read(), dtype=np.uint8, offset=8)
        self.x = (torch.tensor(raw[: limit * 784]).view(limit, 784).float() / 255 - 0.286) / 0.353
        self.y = torch.tensor(raw_labels[:limit]).long()

    def batches(self, size):
        order = torch.randperm(len(self.y))
        for k in range(len(order) // size):
            take = order[k * size : (k + 1) * size]
            yield self.x[take], self.y[take]


class Trainer:
    def __init__(self, model, lr):
        self.model = model
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        self.loss = nn.CrossEntropyLoss(reduction="sum")

    def epoch(self, data, size):
        losses = []
        for x, y in data.batches(size):
            loss = self.loss(self.model(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return sum(losses) / len(losses)

    @torch.no_grad()
    def accuracy(self, data):
        return (self.model(data.x).argmax(dim=1) == data.y).float().mean().item()


torch.manual_seed(3)
train, test = Data("train", 12800), Data("t10k", 2000)
trainer = Trainer(TwoLayerNet(), lr=0.1)
for number in range(15):
    loss = trainer.epoch(train, 256)
    print(f"epoch {number} loss {loss:.4f} accuracy {trainer.accuracy(test):.4f}")
