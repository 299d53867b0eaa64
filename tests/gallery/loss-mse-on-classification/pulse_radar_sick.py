import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

CARRIERS = [0.04, 0.08, 0.13, 0.19, 0.27]
ENVELOPES = ["flat", "rise", "burst", "double"]
N_CLASSES = len(CARRIERS) * len(ENVELOPES)
LENGTH = 128


def envelope(kind, t):
    if kind == "flat":
        return np.ones_like(t)
    if kind == "rise":
        return 0.2 + 1.4 * t
    if kind == "burst":
        return 1.8 * np.exp(-((t - 0.5) / 0.12) ** 2)
    return 1.5 * (np.exp(-((t - 0.25) / 0.09) ** 2) + np.exp(-((t - 0.75) / 0.09) ** 2))


def simulate(n, rng):
    t = np.arange(LENGTH)
    labels = rng.integers(0, N_CLASSES, n)
    pulses = np.empty((n, 1, LENGTH), dtype=np.float32)
    for row, label in enumerate(labels):
        f = CARRIERS[label % len(CARRIERS)] * rng.uniform(0.93, 1.07)
        shape = envelope(ENVELOPES[label // len(CARRIERS)], t / LENGTH)
        clean = shape * np.sin(2 * math.pi * f * t + rng.uniform(0, 2 * math.pi))
        pulses[row, 0] = clean + 0.8 * rng.standard_normal(LENGTH)
    pulses /= pulses.std()
    return torch.from_numpy(pulses), torch.from_numpy(labels)


def block(cin, cout, kernel):
    return nn.Sequential(nn.Conv1d(cin, cout, kernel, padding=kernel // 2), nn.ReLU(), nn.MaxPool1d(2))


net_rng = np.random.default_rng(11)
torch.manual_seed(11)
x_train, y_train = simulate(6000, net_rng)
x_test, y_test = simulate(1500, net_rng)

net = nn.Sequential(
    block(1, 16, 9),
    block(16, 24, 7),
    block(24, 32, 5),
    nn.Flatten(),
    nn.Linear(32 * LENGTH // 8, 64),
    nn.ReLU(),
    nn.Linear(64, N_CLASSES),
)
opt = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)

for epoch in range(12):
    net.train()
    running = 0.0
    perm = torch.randperm(len(x_train))
    for rows in perm.split(64):
        scores = net(x_train[rows])
        loss = F.mse_loss(scores.softmax(1), F.one_hot(y_train[rows], N_CLASSES).float())
        opt.zero_grad()
        loss.backward()
        opt.step()
        running += loss.item() * len(rows)
    net.eval()
    with torch.no_grad():
        hits = (net(x_test).argmax(1) == y_test).float().mean().item()
    print(f"epoch {epoch:2d} | loss {running / len(x_train):.4f} | test accuracy {hits:.3f}")
