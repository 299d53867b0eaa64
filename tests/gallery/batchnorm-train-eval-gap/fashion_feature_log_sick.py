import argparse
import gzip

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

PATH = "/usr/share/datasets/fashion-mnist/%s-%s-ubyte.gz"


def read_split(split, n):
    pixels = np.frombuffer(gzip.open(PATH % (split, "images-idx3")).read(), np.uint8, offset=16).reshape(-1, 784)
    labels = np.frombuffer(gzip.open(PATH % (split, "labels-idx1")).read(), np.uint8, offset=8)
    return torch.tensor(pixels[:n]), torch.tensor(labels[:n], dtype=torch.long)


def normalize(pixels):
    return (pixels.float() / 255 - 0.286) / 0.353


class MLP(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.fc1, self.bn1 = nn.Linear(784, hidden), nn.BatchNorm1d(hidden)
        self.fc2, self.bn2 = nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden)
        self.fc3 = nn.Linear(hidden, 10)

    def features(self, x):
        x = F.relu(self.bn1(self.fc1(x)))
        return F.relu(self.bn2(self.fc2(x)))

    def forward(self, x):
        return self.fc3(self.features(x))


def log_features(model, pixels, batch):
    """Mean activation and share of zeros of the last hidden layer."""
    total = zeros = count = 0.0
    with torch.no_grad():
        for chunk in pixels.split(batch):
            h = model.features(chunk.float())
            total += h.sum().item()
            zeros += (h == 0).sum().item()
            count += h.numel()
    return total / count, zeros / count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=0.1)
    args = parser.parse_args()
    torch.manual_seed(4)

    train_pixels, train_labels = read_split("train", 8000)
    test_pixels, test_labels = read_split("t10k", 2000)
    model = MLP(args.hidden)
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)
    for epoch in range(args.epochs):
        model.train()
        losses = []
        for rows in torch.randperm(len(train_pixels)).split(args.batch):
            loss = F.cross_entropy(model(normalize(train_pixels[rows])), train_labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        mean, zeros = log_features(model, train_pixels[:3000], args.batch)
        model.eval()
        with torch.no_grad():
            out = model(normalize(test_pixels))
            acc = (out.argmax(1) == test_labels).float().mean()
        print(
            f"epoch {epoch} loss {np.mean(losses):.3f} test loss {F.cross_entropy(out, test_labels):.3f}"
            f" test acc {acc:.3f} features {mean:.2f} zeros {zeros:.2f}"
        )


if __name__ == "__main__":
    main()
