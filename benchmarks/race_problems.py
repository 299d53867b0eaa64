"""Three networks and 64 settings of each, for the race against other tools.

    digits    MLP 64-32-10 on scikit-learn's digits          fashion    MLP 784-64-10 on Fashion-MNIST
    cnn       two convolutions on Fashion-MNIST
"""

import gzip
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn

import unstuck

IMAGES = Path("/usr/share/datasets/fashion-mnist")
BATCH = 32
SAMPLES = 2048
HELD_OUT = 512
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {}),
    "momentum": (torch.optim.SGD, {"momentum": 0.9}),
    "rmsprop": (torch.optim.RMSprop, {}),
    "adam": (torch.optim.Adam, {}),
}
RATES = [float(f"{1e-4 * 10 ** (4 * k / 15):.3g}") for k in range(16)]
SETTINGS = [(name, lr) for name in OPTIMIZERS for lr in RATES]


@dataclass(frozen=True)
class Case:
    """A network's constructor and its data; `target`: times faster than plain loops that is aimed at."""

    name: str
    make: object
    train: tuple
    held_out: tuple
    target: float

    def problem(self):
        """As unstuck takes it: training batches, and held-out ones of the same size."""
        torch.manual_seed(0)
        return unstuck.Problem(self.make(), nn.CrossEntropyLoss(), [*batches(self.train), *batches(self.held_out)])


def batches(pair):
    x, y = pair
    return list(zip(x.split(BATCH), y.split(BATCH), strict=True))


def digits():
    data = load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:1664]
    x, y = x[order], y[order]
    return _case("digits", lambda: nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), x, y, 8)


def fashion():
    x, y = _images()
    return _case("fashion", lambda: nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)), x.flatten(1), y, 3)


def cnn():
    x, y = _images()
    return _case(
        "cnn",
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(784, 10)
        ),
        x, y, 1.7,
    )  # fmt: skip


CASES = {"digits": digits, "fashion": fashion, "cnn": cnn}


def _case(name, make, x, y, target):
    held = 13 * BATCH if name == "digits" else HELD_OUT
    return Case(name, make, (x[:-held], y[:-held]), (x[-held:], y[-held:]), target)


def _images():
    count = SAMPLES
    pixels = gzip.decompress((IMAGES / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((IMAGES / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
    images = torch.frombuffer(bytearray(pixels), dtype=torch.uint8)[: count * 784].reshape(count, 1, 28, 28)
    return (images / 255.0 - 0.29) / 0.35, torch.frombuffer(bytearray(labels), dtype=torch.uint8)[:count].long()


def trained(case, name, lr, steps, checks=8, report=None):
    """A plain loop over torch.optim, scored at each check; stops where the loss is not finite. The last accuracy."""
    torch.manual_seed(0)
    net, loss = case.make(), nn.CrossEntropyLoss()
    cls, options = OPTIMIZERS[name]
    optimizer = cls(net.parameters(), lr=lr, **options)
    data, order, generator, accuracy = batches(case.train), [], torch.Generator().manual_seed(0), 0.0
    for step in range(1, steps + 1):
        order = order or torch.randperm(len(data), generator=generator).tolist()
        x, y = data[order.pop()]
        optimizer.zero_grad()
        value = loss(net(x), y)
        if not math.isfinite(value.item()):
            return 0.0
        value.backward()
        optimizer.step()
        if step % (steps // checks) == 0:
            with torch.no_grad():
                x, y = case.held_out
                accuracy = float((net(x).argmax(1) == y).float().mean())
            if report is not None:
                report(step, accuracy)
    return accuracy
