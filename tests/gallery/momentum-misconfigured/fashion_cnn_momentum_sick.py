import gzip

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F


def read_images(split, count):
    folder = "/usr/share/datasets/fashion-mnist"
    with gzip.open(f"{folder}/{split}-images-idx3-ubyte.gz") as f:
        images = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 28, 28)[:count]
    with gzip.open(f"{folder}/{split}-labels-idx1-ubyte.gz") as f:
        labels = np.frombuffer(f.read(), np.uint8, offset=8)[:count]
    x = (torch.tensor(images, dtype=torch.float32) / 255 - 0.286) / 0.353
    return x.unsqueeze(1), torch.tensor(labels, dtype=torch.long)


class Trainer:
    def __init__(self, model, lr, momentum, batch_size=64):
        self.model = model
        self.batch_size = batch_size
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)

    def fit(self, x, y, epochs):
        for epoch in range(epochs):
            self.model.train()
            losses = []
            for idx in torch.randperm(len(x)).split(self.batch_size):
                self.optimizer.zero_grad()
                loss = F.cross_entropy(self.model(x[idx]), y[idx])
                loss.backward()
                self.optimizer.step()
                losses.append(loss.item())
            half = len(losses) // 2
            print(f"epoch {epoch}: loss {np.mean(losses[:half]):.3f} -> {np.mean(losses[half:]):.3f}")

    @torch.no_grad()
    def score(self, x, y):
        self.model.eval()
        return (self.model(x).argmax(1) == y).float().mean().item()


torch.manual_seed(1)
net = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(24 * 49, 10),
)
trainer = Trainer(net, lr=0.01, momentum=0.999)
train_x, train_y = read_images("train", 8000)
trainer.fit(train_x, train_y, epochs=4)
print("test accuracy", trainer.score(*read_images("t10k", 1500)))
