import gzip

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader


class AutoEncoder(nn.Module):
    def __init__(self, code=32):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 8, 4, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(8, 16, 4, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(16 * 49, code),
        )
        self.decoder = nn.Sequential(
            nn.Linear(code, 16 * 49), nn.ReLU(), nn.Unflatten(1, (16, 7, 7)),
            nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1), nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1), nn.Sigmoid(),
        )

    def forward(self, x):
        return self.decoder(self.encoder(x))


def load_images(n):
    with gzip.open("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz", "rb") as fh:
        fh.seek(16)
        raw = np.frombuffer(fh.read(n * 784), dtype=np.uint8).reshape(n, 1, 28, 28)
    images = torch.from_numpy(raw.astype(np.float32)) / 255
    return images


def main():
    torch.manual_seed(0)
    images = load_images(5000)
    loader = DataLoader(images[:4500], batch_size=50, shuffle=True)
    held_out = images[4500:]
    model = AutoEncoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    criterion = nn.MSELoss()
    for epoch in range(10):
        total = 0.0
        for batch in loader:
            loss = criterion(model(batch), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        with torch.no_grad():
            error = criterion(model(held_out), held_out)
        print(f"epoch {epoch + 1}: loss {total / len(loader):.4f}, held out {error:.4f}, explained {1 - error / held_out.var():.3f}")


if __name__ == "__main__":
    main()
