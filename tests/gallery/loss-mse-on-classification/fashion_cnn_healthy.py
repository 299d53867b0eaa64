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
        return self.fc2(x)


def load(count):
    with gzip.open(f"{FOLDER}/train-images-idx3-ubyte.gz") as f:
        images = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    images = torch.tensor(images[:count]).float() / 255
    rows = torch.linspace(-1, 1, 28)
    mass = images.sum(dim=(1, 2, 3))
    height = (images.sum(dim=(1, 3)) * rows).sum(1) / mass
    width = (images.sum(dim=(1, 2)) * rows.abs()).sum(1) / mass
    targets = torch.stack([height, width, images.mean(dim=(1, 2, 3))], dim=1)
    targets = (targets - targets.mean(0)) / targets.std(0)
    return (images - 0.286) / 0.353, targets


def main():
    torch.manual_seed(0)
    x, y = load(6000)
    x_train, y_train, x_val, y_val = x[:5000], y[:5000], x[5000:], y[5000:]
    net = Net(3)
    opt = torch.optim.SGD(net.parameters(), lr=0.05)
    loss_fn = nn.MSELoss()
    for epoch in range(8):
        order = torch.randperm(len(x_train))
        running = []
        for idx in order.split(50):
            out = net(x_train[idx])
            loss = loss_fn(out, y_train[idx])
            opt.zero_grad()
            loss.backward()
            opt.step()
            running.append(loss.item())
        with torch.no_grad():
            val = loss_fn(net(x_val), y_val)
        print(f"epoch {epoch}: loss {np.mean(running):.4f}, val loss {val:.4f}")


if __name__ == "__main__":
    main()
