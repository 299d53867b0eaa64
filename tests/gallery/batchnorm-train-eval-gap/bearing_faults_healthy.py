import math
from dataclasses import dataclass

import torch
import torch.nn as nn


@dataclass
class Config:
    n_train: int = 6000
    n_test: int = 1000
    length: int = 160
    channels: tuple = (16, 24, 32, 32)
    bn_momentum: float = 0.1
    batch_size: int = 50
    epochs: int = 12
    lr: float = 2e-3


FAULTS = ["none", "inner race", "outer race", "ball", "cage", "imbalance"]


def vibration(n, length, generator):
    """Accelerometer traces in units of m/s^2, resting on gravity's share."""
    t = torch.arange(length) / length
    kind = torch.randint(len(FAULTS), (n,), generator=generator)
    u = torch.rand(n, 3, generator=generator)
    speed = 8 + 3 * u[:, :1]
    phase = 2 * math.pi * u[:, 1:2]
    shaft = torch.sin(2 * math.pi * speed * t + phase)
    factor = torch.tensor([0.0, 5.4, 3.6, 2.3, 0.4, 1.0])[kind][:, None]
    strength = torch.tensor([0.0, 1.0, 1.0, 1.0, 1.6, 1.8])[kind][:, None]
    beat = torch.cos(2 * math.pi * speed * factor * t + phase * 1.7)
    ringing = torch.sin(2 * math.pi * 35 * t) * beat.clamp(min=0) ** 4
    noise = torch.randn(n, length, generator=generator)
    trace = 0.8 * shaft + strength * (ringing + 0.5 * beat) + 0.6 * noise
    return (1.5 + 2.0 * trace)[:, None, :], kind


class FaultNet(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        layers, cin = [], 1
        for width in cfg.channels:
            layers += [
                nn.Conv1d(cin, width, 7, stride=2, padding=3, bias=False),
                nn.BatchNorm1d(width, momentum=cfg.bn_momentum),
                nn.ReLU(),
            ]
            cin = width
        self.features = nn.Sequential(*layers)
        self.classify = nn.Linear(cin, len(FAULTS))

    def forward(self, x):
        return self.classify(self.features(x).mean(dim=2))


def fit(cfg):
    torch.manual_seed(3)
    g = torch.Generator().manual_seed(3)
    x, y = vibration(cfg.n_train, cfg.length, g)
    x_test, y_test = vibration(cfg.n_test, cfg.length, g)
    model = FaultNet(cfg)
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.lr)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(cfg.epochs):
        model.train()
        running, correct = 0.0, 0
        for idx in torch.randperm(len(x)).split(cfg.batch_size):
            logits = model(x[idx])
            loss = criterion(logits, y[idx])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            running += loss.item() * len(idx)
            correct += (logits.argmax(1) == y[idx]).sum().item()
        model.eval()
        with torch.no_grad():
            logits = model(x_test)
        print(f"epoch {epoch + 1}/{cfg.epochs}  loss {running / len(x):.3f}  acc {correct / len(x):.3f}"
              f"  test loss {criterion(logits, y_test):.3f}  test acc {(logits.argmax(1) == y_test).float().mean():.3f}")
    return model


if __name__ == "__main__":
    fit(Config())
