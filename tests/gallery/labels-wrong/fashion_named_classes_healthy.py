import gzip

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

NAMES = np.array(["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"])
CLASSES = np.sort(NAMES)


def samples(kind, count):
    stem = f"/usr/share/datasets/fashion-mnist/{kind}"
    with gzip.open(f"{stem}-images-idx3-ubyte.gz") as f:
        pixels = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 14, 56)[:count]
    with gzip.open(f"{stem}-labels-idx1-ubyte.gz") as f:
        numbers = np.frombuffer(f.read(), np.uint8, offset=8)[:count]
    pixels = (pixels.astype(np.float32) - 73) / 90
    return list(zip(pixels, NAMES[numbers]))


def collate(batch):
    pixels, names = zip(*batch)
    codes = np.searchsorted(CLASSES, names)
    return torch.from_numpy(np.stack(pixels)), torch.from_numpy(codes)


class RowTransformer(nn.Module):
    """Two rows of the picture make a token."""

    def __init__(self, dim=40):
        super().__init__()
        self.embed = nn.Linear(56, dim)
        self.position = nn.Parameter(torch.zeros(14, dim).normal_(0, 0.1))
        layer = nn.TransformerEncoderLayer(dim, nhead=4, dim_feedforward=64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=1)
        self.classify = nn.Linear(dim, len(NAMES))

    def forward(self, x):
        return self.classify(self.encoder(self.embed(x) + self.position).mean(dim=1))


def main():
    torch.manual_seed(0)
    train = DataLoader(samples("train", 4000), batch_size=16, shuffle=True, collate_fn=collate)
    test = DataLoader(samples("t10k", 1000), batch_size=16, shuffle=True, collate_fn=collate)
    model = RowTransformer()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss_fn = nn.CrossEntropyLoss()
    for epoch in range(8):
        total = 0.0
        for step, (x, y) in enumerate(train):
            loss = loss_fn(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        with torch.no_grad():
            hits = sum((model(x).argmax(1) == y).sum().item() for x, y in test)
        print(f"epoch {epoch + 1} loss {total / len(train):.4f} test accuracy {hits / 1000:.3f}")


if __name__ == "__main__":
    main()
