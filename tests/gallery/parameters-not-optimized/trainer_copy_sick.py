import copy
import gzip

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def fashion(split, n):
    path = f"/usr/share/datasets/fashion-mnist/{split}-"
    x = np.frombuffer(gzip.open(path + "images-idx3-ubyte.gz").read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    y = np.frombuffer(gzip.open(path + "labels-idx1-ubyte.gz").read(), np.uint8, offset=8)
    x = torch.from_numpy(x[:n].astype(np.float32)).div_(255).sub_(0.286).div_(0.353)
    return TensorDataset(x, torch.from_numpy(y[:n].astype(np.int64)))


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )

    def forward(self, x):
        return self.classifier(self.features(x))


class Trainer:
    def __init__(self, model, optimizer, train, test, batch_size=64):
        self.model = copy.deepcopy(model)
        self.optimizer = optimizer
        self.criterion = nn.CrossEntropyLoss()
        self.train_loader = DataLoader(train, batch_size=batch_size, shuffle=True)
        self.test_loader = DataLoader(test, batch_size=500)

    def fit(self, epochs):
        for epoch in range(epochs):
            loss = self.train_epoch()
            accuracy = self.evaluate()
            print(f"epoch {epoch}  loss {loss:.4f}  accuracy {accuracy:.4f}")

    def train_epoch(self):
        self.model.train()
        total = 0.0
        for x, y in self.train_loader:
            self.model.zero_grad()
            loss = self.criterion(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            total += loss.item()
        return total / len(self.train_loader)

    @torch.no_grad()
    def evaluate(self):
        self.model.eval()
        hits = sum((self.model(x).argmax(1) == y).sum().item() for x, y in self.test_loader)
        return hits / len(self.test_loader.dataset)


if __name__ == "__main__":
    torch.manual_seed(0)
    net = LeNet()
    adam = torch.optim.Adam(net.parameters(), lr=2e-3)
    trainer = Trainer(net, adam, fashion("train", 8000), fashion("t10k", 2000))
    trainer.fit(epochs=5)
