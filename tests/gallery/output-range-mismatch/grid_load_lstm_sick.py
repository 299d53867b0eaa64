# Hour-ahead forecast of a synthetic grid load.
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn


@dataclass
class Settings:
    hours: int = 8000
    held_out: int = 1500
    past: int = 48
    batch: int = 32
    hidden: int = 48
    steps: int = 1800
    lr: float = 4e-3


def make_load(hours, seed=2):
    rng = np.random.default_rng(seed)
    t = np.arange(hours)
    day = np.sin(2 * np.pi * (t - 7) / 24) + 0.4 * np.sin(4 * np.pi * t / 24)
    weekend = ((t // 24) % 7 >= 5).astype(float)
    weather = np.zeros(hours)
    for i in range(1, hours):
        weather[i] = 0.97 * weather[i - 1] + 0.12 * rng.standard_normal()
    return 610 + 140 * day - 90 * weekend + 85 * weather + 12 * rng.standard_normal(hours)


class Forecaster(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.lstm = nn.LSTM(1, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 1)

    def forward(self, past):
        out, _ = self.lstm(past.unsqueeze(-1))
        return torch.sigmoid(self.head(out[:, -1])).squeeze(-1)


def evaluate(model, series, past):
    starts = range(0, len(series) - past - 1, 3)
    x = torch.stack([series[s:s + past] for s in starts])
    y = torch.stack([series[s + past] for s in starts])
    with torch.no_grad():
        err = (model(x) - y).pow(2).mean()
    return err.item(), 1 - (err / y.var()).item()


def run(cfg):
    torch.manual_seed(0)
    load = make_load(cfg.hours)
    known = load[:-cfg.held_out]
    series = torch.tensor((load - known.mean()) / known.std(), dtype=torch.float32)
    train, test = series[:-cfg.held_out], series[-cfg.held_out:]

    model = Forecaster(cfg.hidden)
    optimizer = torch.optim.Adam(model.parameters(), lr=cfg.lr)
    mse = nn.MSELoss()
    seen = []
    for step in range(1, cfg.steps + 1):
        starts = torch.randint(0, len(train) - cfg.past - 1, (cfg.batch,)).tolist()
        x = torch.stack([train[s:s + cfg.past] for s in starts])
        y = torch.stack([train[s + cfg.past] for s in starts])
        loss = mse(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(loss.item())
        if step % 100 == 0:
            err, r2 = evaluate(model, test, cfg.past)
            print(f"step {step:4d}  train mse {np.mean(seen[-100:]):.4f}  test mse {err:.4f}  R2 {r2:.3f}")


run(Settings())
