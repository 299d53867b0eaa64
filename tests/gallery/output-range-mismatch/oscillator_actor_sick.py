"""Learn the acceleration of a Van der Pol oscillator from its state, as a model for planning."""
import math

import torch
from torch import nn


def simulate(steps, mu, dt, seed):
    """Noisy trajectories: states [steps, 2] and accelerations [steps]."""
    gen = torch.Generator().manual_seed(seed)
    kicks = torch.randn(steps, 2, generator=gen) * 0.05
    x, v = 0.5, 0.0
    states, accelerations = [], []
    for kick in kicks.tolist():
        a = mu * (1 - x * x) * v - x
        states.append((x, v))
        accelerations.append(a)
        x, v = x + dt * v + kick[0], v + dt * a + kick[1]
    return torch.tensor(states), torch.tensor(accelerations)


class DynamicsModel(nn.Module):
    def __init__(self, width=64):
        super().__init__()
        self.l1 = nn.Linear(2, width)
        self.l2 = nn.Linear(width, width)
        self.l3 = nn.Linear(width, 1)
        for layer in (self.l1, self.l2):
            bound = 1 / math.sqrt(layer.in_features)
            nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, state):
        h = torch.relu(self.l1(state))
        h = torch.relu(self.l2(h))
        return torch.tanh(self.l3(h)).squeeze(-1)


def main():
    torch.manual_seed(0)
    states, target = simulate(9000, mu=3.0, dt=0.03, seed=0)
    states = (states - states.mean(0)) / states.std(0)
    target = (target - target.mean()) / target.std()
    train_s, train_t, test_s, test_t = states[:7500], target[:7500], states[7500:], target[7500:]
    model = DynamicsModel()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    mse = nn.MSELoss()
    for epoch in range(15):
        total = 0.0
        for rows in torch.randperm(len(train_s)).split(50):
            loss = mse(model(train_s[rows]), train_t[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        with torch.no_grad():
            test = mse(model(test_s), test_t).item()
        r2 = 1 - test / test_t.var().item()
        print(f"epoch {epoch + 1:2d}: train {total / len(train_s):.4f} test {test:.4f} R2 {r2:.3f}")


if __name__ == "__main__":
    main()
