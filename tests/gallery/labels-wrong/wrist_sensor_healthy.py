import numpy as np
import torch
import torch.nn as nn

ACTIVITIES = ("rest", "walk", "cycle", "row")
WINDOW, HOP = 64, 8


def record(samples=240_000, rate=50, seed=14):
    """Three axes of a wrist sensor and the activity at every sample."""
    rng = np.random.default_rng(seed)
    signal = 0.25 * rng.standard_normal((3, samples))
    activity = np.zeros(samples, dtype=np.int64)
    at = 0
    while at < samples:
        length = int(rng.integers(250, 700))
        kind = int(rng.integers(len(ACTIVITIES)))
        stop = min(at + length, samples)
        t = np.arange(stop - at) / rate
        phase = rng.uniform(0, 2 * np.pi)
        if kind == 1:
            f = rng.uniform(1.6, 2.2)
            signal[:, at:stop] += np.stack([np.sin(2 * np.pi * f * t + phase), 0.6 * np.sin(4 * np.pi * f * t), 0.2 * np.cos(2 * np.pi * f * t)])
        elif kind == 2:
            f = rng.uniform(1.0, 1.5)
            signal[:, at:stop] += np.stack([0.3 * np.sin(2 * np.pi * f * t), 0.3 * np.cos(2 * np.pi * f * t + phase), 0.6 * np.sin(2 * np.pi * 5 * t)])
        elif kind == 3:
            f = rng.uniform(0.4, 0.6)
            signal[:, at:stop] += np.stack([0.4 * np.cos(2 * np.pi * f * t), 1.1 * np.sin(2 * np.pi * f * t + phase), 0.7 * np.sin(2 * np.pi * f * t)])
        activity[at:stop] = kind
        at = stop
    return signal.astype(np.float32), activity


def slice_windows(signal, activity):
    starts = np.arange(0, signal.shape[1] - WINDOW, HOP)
    x = np.stack([signal[:, s:s + WINDOW] for s in starts])
    y = activity[starts + WINDOW // 2]
    return torch.from_numpy(x), torch.from_numpy(y)


class ActivityNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv1d(3, 12, 9, padding=4)
        self.conv2 = nn.Conv1d(12, 16, 7, stride=2, padding=3)
        self.conv3 = nn.Conv1d(16, 16, 5, stride=2, padding=2)
        self.fc = nn.Linear(32, len(ACTIVITIES))

    def forward(self, x):
        x = torch.relu(self.conv1(x))
        x = torch.relu(self.conv2(x))
        x = torch.relu(self.conv3(x))
        return self.fc(torch.cat([x.mean(-1), x.amax(-1)], 1))


torch.manual_seed(14)
signal, activity = record()
signal = signal[:, ::2]
activity = activity[::2]
x, y = slice_windows(signal, activity)
edge = int(0.8 * len(x))
x_train, y_train, x_test, y_test = x[:edge], y[:edge], x[edge + WINDOW // HOP:], y[edge + WINDOW // HOP:]

model = ActivityNet()
optimizer = torch.optim.Adam(model.parameters(), lr=1.5e-3)
loss_fn = nn.CrossEntropyLoss()
for epoch in range(1, 9):
    shuffled = torch.randperm(edge)
    loss_sum = correct = 0
    for batch in torch.split(shuffled, 50):
        logits = model(x_train[batch])
        loss = loss_fn(logits, y_train[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(batch)
        correct += (logits.argmax(1) == y_train[batch]).sum().item()
    with torch.no_grad():
        test_acc = (model(x_test).argmax(1) == y_test).float().mean().item()
    print(f"[{epoch:02d}] loss={loss_sum / edge:.3f} train_acc={correct / edge:.3f} test_acc={test_acc:.3f}")
