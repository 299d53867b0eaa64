import gzip

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

FOLDER = "/usr/share/datasets/fashion-mnist"


class Net(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.fc1 = nn.Linear(16 * 7 * 7, 64)
        self.fc2 = nn.Linear(64, outputs)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(x.flatten(1)))
        return torch.sigmoid(self.fc2(x))


def load(count):
    with gzip.open(f"{FOLDER}/train-images-idx3-ubyte.gz") as f:
        images = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(f"{FOLDER}/train-labels-idx1-ubyte.gz") as f:
        labels = np.frombuffer(f.read(), np.uint8, offset=8)
    images = torch.tensor(images[:count]).float() / 255
    return (images - 0.286) / 0.353, torch.tensor(labels[:count]).long()


def main():
    torch.manual_seed(0)
    x, y = load(6000)
    x_train, y_train, x_val, y_val = x[:5000], y[:5000], x[5000:], y[5000:]
    net = Net(10)
    opt = torch.optim.SGD(net.parameters(), lr=0.05)
    loss_fn = nn.MSELoss()
    for epoch in range(8):
        order = torch.randperm(len(x_train))
        running = []
        for idx in order.split(50):
            out = net(x_train[idx])
            target = F.one_hot(y_train[idx], 10).float()
            loss = loss_fn(out, target)
            opt.zero_grad()
            loss.backward()
            opt.step()
            running.append(loss.item())
        with torch.no_grad():
            acc = (net(x_val).argmax(1) == y_val).float().mean()
        print(f"epoch {epoch}: loss {np.mean(running):.4f}, val accuracy {acc:.3f}")


if __name__ == "__main__":
    main()
