"""Multi-label tagging: two garments lie side by side, which kinds are in the picture?"""
import gzip
import os

import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

ROOT = "/usr/share/datasets/fashion-mnist"


def idx(name, header):
    with gzip.open(os.path.join(ROOT, name)) as f:
        return np.frombuffer(f.read(), np.uint8, offset=header)


def small_images(prefix, count):
    pixels = idx(f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)[:count]
    labels = idx(f"{prefix}-labels-idx1-ubyte.gz", 8)[:count]
    images = F.avg_pool2d(torch.tensor(pixels, dtype=torch.float32) / 255, 2)
    return (images - 0.286) / 0.32, torch.tensor(labels, dtype=torch.long)


def pair_up(images, labels, generator):
    other = torch.randperm(len(images), generator=generator)
    canvas = torch.cat([images, images[other]], dim=3)
    tags = torch.zeros(len(images), 10)
    tags.scatter_(1, labels[:, None], 1.0)
    tags.scatter_(1, labels[other][:, None], 1.0)
    return canvas, tags


class Tagger(nn.Module):
    def __init__(self, n_tags=10):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )
        self.hidden = nn.Linear(32 * 3 * 7, 128)
        self.tags = nn.Linear(128, n_tags)

    def forward(self, x):
        x = self.conv(x).flatten(1)
        x = torch.relu(self.hidden(x))
        return torch.sigmoid(self.tags(x))


def micro_f1(scores, tags):
    predicted = (torch.sigmoid(scores) > 0.5).float()
    tp = (predicted * tags).sum()
    return (2 * tp / (predicted.sum() + tags.sum()).clamp(min=1)).item()


def main():
    torch.manual_seed(1)
    g = torch.Generator().manual_seed(99)
    images, labels = small_images("train", 9000)
    test_canvas, test_tags = pair_up(*small_images("t10k", 2000), g)

    model = Tagger()
    opt = torch.optim.Adam(model.parameters(), lr=2e-3)
    criterion = nn.BCEWithLogitsLoss()

    for epoch in range(10):
        canvas, tags = pair_up(images, labels, g)
        total = 0.0
        for i in range(0, len(canvas), 60):
            opt.zero_grad()
            loss = criterion(model(canvas[i:i + 60]), tags[i:i + 60])
            loss.backward()
            opt.step()
            total += loss.item()
        with torch.no_grad():
            scores = model(test_canvas)
        print(f"epoch {epoch}: train loss {total / (len(canvas) // 60):.4f}, test loss {criterion(scores, test_tags):.4f}, "
              f"micro F1 {micro_f1(scores, test_tags):.3f}")


main()
