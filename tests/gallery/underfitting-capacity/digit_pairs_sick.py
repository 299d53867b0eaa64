"""Same or different? Two images of digits side by side."""
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn


def make_pairs(images, labels, n, rng):
    i = rng.integers(0, len(labels), n)
    j = rng.integers(0, len(labels), n)
    same = rng.random(n) < 0.5
    for k in np.flatnonzero(same):
        j[k] = rng.choice(np.flatnonzero(labels == labels[i[k]]))
    x = np.concatenate([images[i], images[j]], axis=1)
    y = (labels[i] == labels[j]).astype(np.float32)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def main():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    digits = load_digits()
    images = digits.data / 8.0 - 1.0
    order = rng.permutation(len(images))
    train_ids, test_ids = order[:1400], order[1400:]
    x, y = make_pairs(images[train_ids], digits.target[train_ids], 8000, rng)
    xt, yt = make_pairs(images[test_ids], digits.target[test_ids], 1000, rng)

    model = nn.Linear(128, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    criterion = nn.BCEWithLogitsLoss()
    for epoch in range(12):
        total = 0.0
        perm = torch.randperm(len(x))
        for idx in perm.split(100):
            optimizer.zero_grad()
            loss = criterion(model(x[idx]).squeeze(1), y[idx])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(idx)
        with torch.no_grad():
            acc_train = ((model(x).squeeze(1) > 0) == (y > 0.5)).float().mean().item()
            acc_test = ((model(xt).squeeze(1) > 0) == (yt > 0.5)).float().mean().item()
        print(f"epoch {epoch + 1:2d}  loss {total / len(x):.4f}  train {acc_train:.3f}  test {acc_test:.3f}")


main()
