# two digits side by side: is their sum even or odd?
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

torch.set_num_threads(1)
torch.manual_seed(5)
rng = np.random.default_rng(5)

digits = load_digits()
imgs = digits.images.astype(np.float32) / 8.0 - 1.0
labels = digits.target
perm = rng.permutation(len(imgs))
pool_train, pool_test = perm[:1400], perm[1400:]


def make_pairs(pool, n):
    a, b = rng.choice(pool, n), rng.choice(pool, n)
    x = np.stack([imgs[a], imgs[b]], axis=1)
    y = (labels[a] + labels[b]) % 2
    return torch.from_numpy(x), torch.from_numpy(y).float()


class PairNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 48, 3, padding=1)
        self.pool = nn.AvgPool2d(2)
        self.fc1 = nn.Linear(48 * 4, 96)
        self.fc2 = nn.Linear(96, 1)

    def forward(self, x):
        x = self.conv1(x)
        F.relu(x)
        x = self.pool(x)
        x = self.conv2(x)
        F.relu(x)
        x = self.pool(x).flatten(1)
        x = self.fc1(x)
        F.relu(x)
        return self.fc2(x).squeeze(1)


x_test, y_test = make_pairs(pool_test, 1000)
net = PairNet()
optimizer = torch.optim.NAdam(net.parameters(), lr=2e-3)
bce = nn.BCEWithLogitsLoss()
avg = 0.0
for step in range(1, 1201):
    xb, yb = make_pairs(pool_train, 64)
    loss = bce(net(xb), yb)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    avg += loss.item()
    if step % 200 == 0:
        net.eval()
        with torch.no_grad():
            out = net(x_test)
        net.train()
        acc = ((out > 0).float() == y_test).float().mean().item()
        print(f"{step:5d} train loss {avg / 200:.4f} test loss {bce(out, y_test).item():.4f} test acc {acc:.3f}")
        avg = 0.0
