import gzip

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
SEED = 2024
torch.manual_seed(SEED)
rng = np.random.default_rng(SEED)

DIR = "/usr/share/datasets/fashion-mnist"


def load_split(kind, n):
    x = np.frombuffer(gzip.open(f"{DIR}/{kind}-images-idx3-ubyte.gz").read(), np.uint8, offset=16)
    y = np.frombuffer(gzip.open(f"{DIR}/{kind}-labels-idx1-ubyte.gz").read(), np.uint8, offset=8)
    x = x.reshape(-1, 28, 28)[:n, ::2, ::2].astype(np.float32) / 255
    return x, y[:n].astype(np.int64)


def augment(x, y, copies):
    """Original images plus `copies` randomly flipped and shifted versions."""
    xs, ys = [x], [y]
    for _ in range(copies):
        order = rng.permutation(len(x))
        new = x[order].copy()
        flip = rng.random(len(x)) < 0.5
        new[flip] = new[flip, :, ::-1]
        new = np.roll(new, rng.integers(-1, 2), axis=2)
        xs.append(new)
        ys.append(y[order])
    return np.concatenate(xs), np.concatenate(ys)


train_x, train_y = load_split("train", 4000)
test_x, test_y = load_split("t10k", 1000)
train_x, train_y = augment(train_x, train_y, copies=3)

to_x = lambda a: torch.from_numpy(a).unsqueeze(1).sub(0.28).div(0.35)
train_x, test_x = to_x(train_x), to_x(test_x)
train_y, test_y = torch.from_numpy(train_y), torch.from_numpy(test_y)

net = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ELU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.ELU(), nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(32 * 9, 64), nn.ELU(), nn.Linear(64, 10),
)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=800)

step = 0
while step < 800:
    net.train()
    for sel in torch.randperm(len(train_x)).split(64)[:200]:
        loss = criterion(net(train_x[sel]), train_y[sel])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        step += 1
    net.eval()
    with torch.no_grad():
        out = net(test_x)
        every = net(train_x[::7])
        train_acc = (every.argmax(1) == train_y[::7]).float().mean().item()
        test_acc = (out.argmax(1) == test_y).float().mean().item()
    print(f"step {step}: loss {loss.item():.3f} train acc {train_acc:.3f} "
          f"test loss {criterion(out, test_y).item():.3f} test acc {test_acc:.3f}")
