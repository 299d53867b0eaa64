"""Sharpening: from a blurred picture to the detail that the blur took away."""
import gzip

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from sklearn.decomposition import PCA
from torch import nn

torch.manual_seed(0)

TRAIN, TEST = 2000, 500


def load(count):
    with gzip.open("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz") as f:
        raw = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:count]
    return F.avg_pool2d(torch.tensor(raw / 255.0), 2).squeeze(1).numpy()


def blur(pictures):
    return np.stack([gaussian_filter(picture, sigma=1, mode="nearest") for picture in pictures])


sharp = load(TRAIN + TEST)
blurred = blur(sharp)
detail = (sharp - blurred).reshape(len(sharp), -1)
detail = (detail - detail[:TRAIN].mean(0)) / detail[:TRAIN].std()

scaler = PCA(120, whiten=True).fit(blurred[:TRAIN].reshape(TRAIN, -1))
x = torch.tensor(scaler.transform(blurred.reshape(len(sharp), -1)), dtype=torch.float32)
y = torch.tensor(detail, dtype=torch.float32)
x, test_x, y, test_y = x[:TRAIN], x[TRAIN:], y[:TRAIN], y[TRAIN:]

model = nn.Sequential(nn.Linear(x.shape[1], 192), nn.Tanh(), nn.Linear(192, 196))
optimizer = torch.optim.SGD(model.parameters(), lr=3.0)
criterion = nn.MSELoss()

for epoch in range(1, 301):
    optimizer.zero_grad()
    loss = criterion(model(x), y)
    loss.backward()
    optimizer.step()
    if epoch % 30 == 0:
        with torch.no_grad():
            score = 1 - criterion(model(test_x), test_y).item() / test_y.square().mean().item()
        print(f"epoch {epoch}: mse {loss.item():.4f}, test R2 {score:.3f}")
