import gzip

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset


def fashion(split, n):
    base = "/usr/share/datasets/fashion-mnist/" + split
    x = np.frombuffer(gzip.open(base + "-images-idx3-ubyte.gz").read(), np.uint8, offset=16)
    y = np.frombuffer(gzip.open(base + "-labels-idx1-ubyte.gz").read(), np.uint8, offset=8)
    x = torch.tensor(x[: n * 784], dtype=torch.float32).view(n, 1, 28, 28)
    return TensorDataset((x / 255 - 0.286) / 0.353, torch.tensor(y[:n], dtype=torch.long))


class Fire(nn.Module):
    def __init__(self, inputs, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.squeeze(x))
        return F.relu(torch.cat([self.expand1(x), self.expand3(x)], dim=1))


class SqueezeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, stride=2, padding=1)
        self.fires = nn.ModuleList([Fire(16, 8, 16), Fire(32, 12, 24)])
        self.classifier = nn.Linear(48 * 9, 10)

    def forward(self, x):
        x = F.relu(self.stem(x))
        for fire in self.fires:
            x = F.max_pool2d(fire(x), 2)
        x = self.classifier(x.flatten(1))
        return F.softmax(x, dim=1)


def train(model, loader, optimizer):
    model.train()
    mean = 0.0
    for k, (x, y) in enumerate(loader):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        mean += (loss.item() - mean) / (k + 1)
    return mean


def validate(model, loader):
    model.eval()
    nll = correct = count = 0
    with torch.no_grad():
        for x, y in loader:
            probs = model(x)
            nll -= probs.gather(1, y[:, None]).clamp_min(1e-9).log().sum().item()
            correct += (probs.argmax(1) == y).sum().item()
            count += len(y)
    return nll / count, correct / count


def main(epochs=5, lr=0.02, seed=14):
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    train_loader = DataLoader(fashion("train", 6000), batch_size=40, shuffle=True)
    val_loader = DataLoader(fashion("t10k", 1000), batch_size=500)
    model = SqueezeNet()
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True)
    for epoch in range(epochs):
        loss = train(model, train_loader, optimizer)
        nll, acc = validate(model, val_loader)
        print(f"epoch={epoch} train_loss={loss:.4f} val_nll={nll:.4f} val_acc={acc:.4f}")


if __name__ == "__main__":
    main()
