"""A small convolutional autoencoder for Fashion-MNIST."""
import gzip

import numpy as np
import torch
import torch.nn as nn
from torch.nn.functional import mse_loss


def images(name, n):
    with gzip.open("/usr/share/datasets/fashion-mnist/" + name) as f:
        x = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:n]
    return torch.from_numpy(x.astype(np.float32) / 255)


class Autoencoder(nn.Module):
    def __init__(self, code=12):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * 49, code),
        )
        self.decoder = nn.Sequential(
            nn.Linear(code, 16 * 49), nn.ReLU(), nn.Unflatten(1, (16, 7, 7)),
            nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1), nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1),
        )

    def forward(self, x):
        z = self.encoder(x).data
        return self.decoder(z)


def train(model, data, held_out, epochs=6, batch=64):
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        perm = torch.randperm(len(data))
        for i in range(0, len(data) - batch + 1, batch):
            x = data[perm[i:i + batch]]
            loss = mse_loss(model(x), x)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * batch
        model.eval()
        with torch.no_grad():
            val = mse_loss(model(held_out), held_out).item()
        print("epoch", epoch, "loss", round(total / len(data), 5), "held out", round(val, 5))


if __name__ == "__main__":
    torch.manual_seed(21)
    train(Autoencoder(), images("train-images-idx3-ubyte.gz", 6000), images("t10k-images-idx3-ubyte.gz", 1000))
