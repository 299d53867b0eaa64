"""How far is a digit turned? A small CNN regresses the angle."""
import numpy as np
import torch
import torch.nn as nn
from scipy.ndimage import rotate
from sklearn.datasets import load_digits

rng = np.random.default_rng(12)
torch.manual_seed(12)


def turned(images, copies):
    angles = rng.uniform(-60, 60, size=len(images) * copies)
    pictures = [rotate(images[i % len(images)], a, reshape=False, order=1) for i, a in enumerate(angles)]
    x = torch.tensor(np.stack(pictures), dtype=torch.float32).unsqueeze(1) / 16
    return x - 0.3, torch.tensor(angles / 35, dtype=torch.float32)  # 35 degrees is one unit


images = load_digits(n_class=8).images  # without 8 and 9: an 8 looks the same from many sides
x_train, y_train = turned(images[:1150], 4)
x_test, y_test = turned(images[1150:], 3)

net = nn.Sequential(
    nn.Conv2d(1, 24, 3), nn.ReLU(),
    nn.Conv2d(24, 48, 3), nn.ReLU(),
    nn.Flatten(),
    nn.Linear(48 * 16, 64), nn.ReLU(),
    nn.Linear(64, 1),
)
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)


def mse(prediction, target):
    return ((prediction - target) ** 2).mean()


for epoch in range(10):
    net.train()
    losses = []
    shuffled = torch.randperm(len(x_train))
    for i in range(0, len(x_train), 50):
        batch = shuffled[i : i + 50]
        prediction = net(x_train[batch]).squeeze(1)
        loss = mse(prediction, y_train[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    net.eval()
    with torch.no_grad():
        error = 35 * (net(x_test).flatten() - y_test).abs().mean().item()
    print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}, mean error {error:.1f} degrees")
